// The microphone as samples, with its level in dB while it records.
import { t } from "./i18n.js";
import { joined } from "./sound.js";

async function release(stream, context) {
  for (const track of stream.getTracks()) track.stop();
  await context?.close();
}

export class Recorder {
  #wish = null; // the start that is wanted: one that was left while the browser asked goes no further

  constructor(onlevel) { this.onlevel = onlevel; this.context = null; }

  // Whether it records now: false where `leave` came before the microphone did.
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(t("record.forbidden"));
    const wish = this.#wish = {};
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    let context = null;
    try {
      context = new AudioContext();
      await context.audioWorklet.addModule("/static/core/recorder-worklet.js");
      if (wish === this.#wish) this.#listen(context, stream);
    } catch (error) {
      throw new Error(error.message); // plain: what could not be loaded is an AbortError, which pages keep to themselves
    } finally {
      if (this.context === null) await release(stream, context);
    }
    return this.isRecording;
  }

  #listen(context, stream) {
    this.pieces = []; this.length = 0;
    const source = context.createMediaStreamSource(stream);
    this.node = new AudioWorkletNode(context, "tap", { numberOfOutputs: 0 });
    let power = 0, peak = 0, count = 0;
    this.node.port.onmessage = ({ data }) => {
      this.pieces.push(data); this.length += data.length;
      for (const value of data) { power += value * value; peak = Math.max(peak, Math.abs(value)); }
      count += data.length;
      if (count >= context.sampleRate / 20) {
        this.onlevel(10 * Math.log10(power / count + 1e-10), peak, this.length / context.sampleRate);
        power = peak = count = 0;
      }
    };
    source.connect(this.node);
    this.stream = stream; this.context = context;
  }

  // No start that is under way is wanted any more.
  leave() { this.#wish = null; }

  get isRecording() { return this.context !== null; }

  async stop() {
    const rate = this.context.sampleRate;
    this.node.port.onmessage = null;
    const context = this.context;
    this.context = null;
    await release(this.stream, context);
    return { samples: joined(this.pieces), rate };
  }
}
