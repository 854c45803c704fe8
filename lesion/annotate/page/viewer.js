// One slice, large: windowed by dragging, zoomed, its neighbours by the wheel.
import { Component, h } from './preact.mjs';
import htm from './htm.mjs';

const html = htm.bind(h);
export const PLAIN = { center: 0.5, width: 1, zoom: 1, x: 0, y: 0 };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** What a drag by (dx, dy) shares of the picture makes of a view: right is more width, down is brighter. */
export const windowed = (view, dx, dy) => ({
  ...view,
  width: clamp(view.width + dx, 0.02, 2),
  center: clamp(view.center - dy, 0, 1),
});

export const moved = (view, dx, dy) => {
  const most = (view.zoom - 1) / 2;
  return { ...view, x: clamp(view.x + dx, -most, most), y: clamp(view.y + dy, -most, most) };
};

export const zoomed = (view, factor) => moved({ ...view, zoom: clamp(view.zoom * factor, 1, 8) }, 0, 0);

/** The linear window as an SVG filter: exact, and the same in every browser. */
export const Windowing = ({ view }) => {
  const slope = 1 / view.width;
  const intercept = 0.5 - view.center * slope;
  const functions = ['R', 'G', 'B'].map((c) => h(`feFunc${c}`, { type: 'linear', slope, intercept }));
  return html`<svg class="filters" aria-hidden="true"><filter id="window" color-interpolation-filters="sRGB">
    <feComponentTransfer>${functions}</feComponentTransfer></filter></svg>`;
};

const AGAIN_MS = 1500;

export class Viewer extends Component {
  state = { tries: 0 };

  drag = (event) => {
    if (!(event.buttons & 1)) return;
    const { width, height } = event.currentTarget.getBoundingClientRect();
    const [dx, dy] = [event.movementX / width, event.movementY / height];
    const { view, change } = this.props;
    change(event.shiftKey ? moved(view, dx, dy) : windowed(view, dx, dy));
  };

  wheel = (event) => {
    event.preventDefault();
    if (event.ctrlKey) this.props.change(zoomed(this.props.view, event.deltaY < 0 ? 1.1 : 1 / 1.1));
    else this.props.scroll(Math.sign(event.deltaY));
  };

  render({ src, view, change, note, loaded }, { tries }) {
    const transform = `translate(${view.x * 100}%, ${view.y * 100}%) scale(${view.zoom})`;
    return html`<div class="viewer" onPointerMove=${this.drag} onWheel=${this.wheel} onDblClick=${() => change(PLAIN)}
        onPointerDown=${(e) => e.currentTarget.setPointerCapture(e.pointerId)}>
      <img key=${`${src}?${tries}`} src=${`${src}?${tries}`} alt="the slice asked for" draggable=${false} style=${{ transform }}
        onLoad=${() => loaded(src)} onError=${() => setTimeout(() => this.setState({ tries: tries + 1 }), AGAIN_MS)} />
      ${note && html`<p class="note">${note}</p>`}
    </div>`;
  }
}
