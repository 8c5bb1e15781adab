import { sleep, task, text } from "../../work.js";

export const dynamic = "force-dynamic";

// 100 ms of work for the answer, then 50 ms of logging and 30 ms of analytics that it does not need.
export async function GET() {
  await sleep(100);
  await sleep(50);
  task();
  await sleep(30);
  task();
  return text("hello\n");
}
