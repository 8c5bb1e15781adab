#!/usr/bin/env bash
# The compiler for `wasm32-unknown-unknown`: Debian's rustc-web with the source of std, unpacked and not installed, and
# nothing that rustup would load from elsewhere. Prints the settings for a shell to eval; fails, and says why, where it
# can't be had.
#
#   eval "$(examples/workers/toolchain.sh FOLDER)"
set -euo pipefail

folder=$(realpath -m "$1")
usr=$folder/usr
libraries=$usr/lib:$usr/lib/x86_64-linux-gnu

fail() {
    echo "no compiler for wasm32-unknown-unknown: $*" >&2
    exit 1
}

# The linker is that of the stable toolchain: Debian's package of it has other dependencies.
linker=$(env -u RUSTC rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin/rust-lld
[ -x "$linker" ] || fail "the toolchain of \`rustc\` has no rust-lld"

if ! LD_LIBRARY_PATH=$libraries "$usr/bin/rustc" --version >/dev/null 2>&1; then
    command -v apt-get >/dev/null || fail "it comes by apt-get, which is not here"
    [ -n "$(apt-cache search --names-only '^rust-web-src$')" ] || apt-get update -qq >&2
    version=$(apt-cache madison rustc-web | awk 'NR == 1 { print $3 }')
    [ -n "$version" ] || fail "apt knows no package rustc-web"
    # The package of this name that another one depends on.
    needs() {
        apt-cache show "$1=$version" |
            awk -v name="$2" '/^Depends:/ && match($0, name) { print substr($0, RSTART, RLENGTH) }'
    }
    std=$(needs libstd-rust-web-dev 'libstd-rust-web-[0-9.]+')
    llvm=$(needs "$std" 'libllvm[0-9]+')
    rm -rf "$folder"
    mkdir -p "$folder/packages"
    (
        cd "$folder/packages"
        # As who owns the folder, and not as apt's own user, who may not write there.
        apt-get download -qq -o APT::Sandbox::User=root "rustc-web=$version" "$std=$version" \
            "libstd-rust-web-dev=$version" "rust-web-src=$version" "$llvm" libz3-4 >&2
        # Of the source std is needed, and not the compiler.
        dpkg-deb --fsys-tarfile rust-web-src*.deb |
            tar -x -C "$folder" --wildcards './usr/src/*/library*' './usr/lib/*'
        rm rust-web-src*.deb
        for package in *.deb; do
            dpkg -x "$package" "$folder"
        done
    ) || fail "its packages could not be loaded"
    rm -rf "$folder/packages"
    LD_LIBRARY_PATH=$libraries "$usr/bin/rustc" --version >&2 || fail "it does not start"
fi

# Of std, which is built with the program, cargo asks for the flag of the unstable.
cat <<END
export RUSTC='$usr/bin/rustc' RUSTC_BOOTSTRAP=1 LD_LIBRARY_PATH='$libraries'
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER='$linker'
END
