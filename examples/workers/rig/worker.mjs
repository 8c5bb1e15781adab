// What `worker-build` makes of a Worker, as far as this one needs it: the module, its imports, its handler.
import module from "./worker_bg.wasm";
import * as imports from "./worker_bg.js";

const { exports } = new WebAssembly.Instance(module, { "./worker_bg.js": imports });
imports.__wbg_set_wasm(exports);
exports.__wbindgen_start();

export default {
  fetch: (request, env, context) => imports.fetch(request, env, context),
};
