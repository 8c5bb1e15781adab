import { setTimeout as sleep } from "node:timers/promises";

export { sleep };

// Tasks that have ended: a run in which some are missing is not counted. On the process, because each route may have a
// copy of this module.
globalThis.done ??= 0;

export function task() {
  globalThis.done += 1;
}

export function text(answer) {
  return new Response(answer, { headers: { "content-type": "text/plain; charset=utf-8" } });
}
