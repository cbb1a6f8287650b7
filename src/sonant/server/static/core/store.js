// What the browser keeps of the studio: small things in localStorage, sound in IndexedDB. Nothing is sent anywhere.
const PREFIX = "sonant-";

export const prefs = {
  get(name, otherwise = null) { try { return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise; } catch { return otherwise; } },
  set(name, value) { try { localStorage.setItem(PREFIX + name, JSON.stringify(value)); } catch { /* full, or forbidden: the page works on without */ } },
};

export const MOST_TAKES = 60, MOST_BYTES = 120 * 2 ** 20, MOST_SAMPLE_BYTES = 24 * 2 ** 20;
const weight = (take) => take.pcm.byteLength + JSON.stringify(take.form ?? {}).length + (take.body ? JSON.stringify(take.body).length : 0); // earlier versions kept the body too

let opening = null;
function database() {
  opening ??= new Promise((resolve) => {
    let asked;
    try { asked = indexedDB.open("sonant", 1); } catch { resolve(null); return; }
    asked.onupgradeneeded = () => { asked.result.createObjectStore("takes", { keyPath: "id" }); asked.result.createObjectStore("samples"); };
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = asked.onblocked = () => resolve(null); // private windows of some browsers
  });
  return opening;
}

async function inStore(name, mode, work) {
  const found = await database();
  if (!found) return null;
  return new Promise((resolve) => {
    const going = found.transaction(name, mode), asked = work(going.objectStore(name));
    going.oncomplete = () => resolve(asked?.result ?? null);
    going.onerror = going.onabort = () => resolve(null); // no room
  });
}

let newest = 0;
// Keeps a take; the oldest go when there are too many or they are too large. Gives those that are left, newest first.
export async function keepTake(take) {
  take.id = newest = Math.max(Date.now(), newest + 1);
  await inStore("takes", "readwrite", (store) => store.put(take));
  const takes = await listTakes();
  if (!takes.some((one) => one.id === take.id)) takes.unshift(take); // there while the page is open
  let bytes = 0;
  const kept = takes.filter((one, at) => { bytes += weight(one); return at === 0 || (at < MOST_TAKES && bytes <= MOST_BYTES); });
  for (const one of takes) if (!kept.includes(one)) await dropTake(one.id);
  return kept;
}
export async function listTakes() { return ((await inStore("takes", "readonly", (store) => store.getAll())) ?? []).sort((a, b) => b.id - a.id); }
export const dropTake = (id) => inStore("takes", "readwrite", (store) => store.delete(id));
export const dropTakes = () => inStore("takes", "readwrite", (store) => store.clear());
export const bytesOf = (takes) => takes.reduce((sum, take) => sum + weight(take), 0);

// A sample with its time; one of an earlier version is the blob alone, and the oldest of all.
const dated = (kept) => (kept instanceof Blob ? { blob: kept, at: 0 } : kept);
export async function keptSample(name) { const kept = await inStore("samples", "readonly", (store) => store.get(name)); return kept && dated(kept).blob; }
// Keeps a sample; the oldest go when all are too large together.
export const keepSample = (name, blob) => inStore("samples", "readwrite", (store) => {
  const asked = store.put({ blob, at: Date.now() }, name), names = store.getAllKeys(), all = store.getAll();
  all.onsuccess = () => {
    let bytes = 0;
    const newestFirst = all.result.map((kept, n) => ({ name: names.result[n], ...dated(kept) })).sort((a, b) => (b.name === name) - (a.name === name) || b.at - a.at);
    for (const one of newestFirst) { bytes += one.blob.size; if (one.name !== name && bytes > MOST_SAMPLE_BYTES) store.delete(one.name); }
  };
  return asked;
});
