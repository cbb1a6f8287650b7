// The microphone as samples, with its level in dB while it records.
import { t } from "./i18n.js";
import { joined } from "./sound.js";

export class Recorder {
  constructor(onlevel) { this.onlevel = onlevel; this.context = null; }

  async start() {
    if (!navigator.mediaDevices?.getUserMedia) throw new Error(t("record.forbidden"));
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    this.context = new AudioContext();
    await this.context.audioWorklet.addModule("/static/core/recorder-worklet.js");
    this.pieces = []; this.length = 0;
    const source = this.context.createMediaStreamSource(this.stream);
    this.node = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
    let power = 0, peak = 0, count = 0;
    this.node.port.onmessage = ({ data }) => {
      this.pieces.push(data); this.length += data.length;
      for (const value of data) { power += value * value; peak = Math.max(peak, Math.abs(value)); }
      count += data.length;
      if (count >= this.context.sampleRate / 20) {
        this.onlevel(10 * Math.log10(power / count + 1e-10), peak, this.length / this.context.sampleRate);
        power = peak = count = 0;
      }
    };
    source.connect(this.node);
  }

  get isRecording() { return this.context !== null; }

  async stop() {
    const rate = this.context.sampleRate;
    this.node.port.onmessage = null;
    for (const track of this.stream.getTracks()) track.stop();
    await this.context.close();
    this.context = null;
    return { samples: joined(this.pieces), rate };
  }
}
