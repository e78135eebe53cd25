"use strict";
// Maps of where a model looks, drawn over the crops in colours from dark to bright.

const RAMP = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]];

const LOOKS = {
  attention: "bright where the model weighs its last map most",
  strength: "bright where its last map is strongest, since it has no attention of its own",
};

function ramp(share) {
  const place = share * (RAMP.length - 1), low = Math.min(Math.floor(place), RAMP.length - 2), rest = place - low;
  return RAMP[low].map((value, i) => value + rest * (RAMP[low + 1][i] - value));
}

class Attention {
  constructor(models) {
    this.on = false;
    this.models = models.map(({ attention }) => ({ ...attention, bytes: Uint8Array.from(atob(attention.maps), (one) => one.charCodeAt(0)) }));
    this.colours = Array.from({ length: 256 }, (_, i) => ramp(i / 255));
  }

  get any() {
    return this.models.some((one) => one.count);
  }

  has(number, model) {
    return number < this.models[model].count;
  }

  // What is drawn of each model, or why nothing is.
  words(models) {
    const said = this.models.map((one) => one.count ? LOOKS[one.kind] : `none, since ${one.reason}`);
    const same = new Set(said).size === 1;
    const count = Math.max(...this.models.map((one) => one.count));
    const text = same ? said[0] : said.map((one, i) => `${models[i].short}: ${one}`).join("; ");
    const where = count ? ` Drawn over ${count} crops, those of the worst, best and median queries.` : "";
    return `Where it looks: ${text}.${where}`;
  }

  overlay(image, number, model) {
    const { width, height, bytes } = this.models[model];
    const small = element("canvas", { width, height }), canvas = element("canvas", { class: "look", "aria-hidden": "true" });
    const pixels = new ImageData(width, height), first = number * width * height;
    for (let i = 0; i < width * height; i += 1) pixels.data.set([...this.colours[bytes[first + i]], 255], 4 * i);
    small.getContext("2d").putImageData(pixels, 0, 0);
    image.decode().then(() => {
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const paper = canvas.getContext("2d");
      paper.drawImage(image, 0, 0);
      // Grey, so that only the map has colours.
      paper.globalCompositeOperation = "saturation";
      paper.fillStyle = "#808080";
      paper.fillRect(0, 0, canvas.width, canvas.height);
      paper.globalCompositeOperation = "source-over";
      paper.globalAlpha = 0.55;
      paper.imageSmoothingQuality = "high";
      paper.drawImage(small, 0, 0, canvas.width, canvas.height);
      canvas.dataset.drawn = "yes";
    });
    return canvas;
  }
}
