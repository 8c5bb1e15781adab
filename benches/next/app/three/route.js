import { after } from "next/server";
import { task, text } from "../../work.js";

export const dynamic = "force-dynamic";

export async function GET() {
  after(task);
  after(task);
  after(task);
  return text("hello\n");
}
