import { text } from "../../work.js";

export const dynamic = "force-dynamic";

export async function GET() {
  return text("hello\n");
}
