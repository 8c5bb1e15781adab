import { after } from "next/server";
import { sleep, task, text } from "../../work.js";

export const dynamic = "force-dynamic";

export async function GET() {
  after(async () => {
    await sleep(50);
    task();
  });
  after(async () => {
    await sleep(30);
    task();
  });
  await sleep(100);
  return text("hello\n");
}
