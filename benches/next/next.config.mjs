// A server of its own files, without what only the build needs.
export default { output: "standalone", poweredByHeader: false };
