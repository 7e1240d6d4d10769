// How values are shown: null is what is not known, and never a zero.

export const UNKNOWN = "–";

const whole = new Intl.NumberFormat("en");
// a little less than nothing is no "-0.0"
const oneDigit = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1, signDisplay: "negative" });

export const number = (value) => (value == null ? UNKNOWN : whole.format(value));
export const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
export const rate = (value) =>
  value == null ? UNKNOWN : value === 0 ? "0" : value < 100 ? oneDigit.format(value) : whole.format(Math.round(value));

// The same words as on a terminal: 0.4 s, 59 s, 12 min, 5.3 h, 21 d.
export function duration(seconds) {
  if (seconds == null) return UNKNOWN;
  if (seconds < 10) return seconds ? `${seconds.toFixed(1)} s` : "0 s";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} d`;
}

// Of what is told anew each second.
export const ago = (seconds) => `${seconds < 10 ? `${Math.max(0, Math.floor(seconds))} s` : duration(seconds)} ago`;

export const percent = (share) => (share == null ? UNKNOWN : `${Math.round(share * 100)} %`);

// In the reader's own zone.
export const clock = (unixSeconds) =>
  unixSeconds == null ? "never" : new Date(unixSeconds * 1000).toLocaleTimeString();
export const date = (unixSeconds) =>
  unixSeconds == null ? "never" : new Date(unixSeconds * 1000).toLocaleString();

// A name may hold any character: what moves the cursor or turns text around is shown escaped.
export function name(text) {
  if (text === "") return "(empty id)";
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0);
    const short = { 10: "\\n", 13: "\\r", 9: "\\t" }[code];
    return short ?? (code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`);
  });
}

// The address of a group or topic; names are parameters: in a path `..` would be another path.
export function address(kind, cluster, id) {
  const parameters = new URLSearchParams();
  if (cluster) parameters.set("cluster", cluster);
  parameters.set(kind, id);
  return `/${kind}?${parameters}`;
}

// A cell that begins like a formula would be run by a spreadsheet: a group may be called =cmd().
function csvCell(value) {
  if (value == null) return "";
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export const csv = (titles, rows) => [titles, ...rows].map((row) => row.map(csvCell).join(",") + "\r\n").join("");

export function download(fileName, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = fileName;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
