// Shows one slice, large: dragging changes the window, the wheel goes to its neighbours.
import { Component, h } from './preact.mjs';
import htm from './htm.mjs';

const html = htm.bind(h);
export const RETRY_MS = 1500; // before a picture or a message that failed is tried again
export const RESET_VIEW = { center: 0.5, width: 1, zoom: 1, x: 0, y: 0 };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Returns the view with its window dragged by (dx, dy), in shares of the picture: right is wider, down is brighter. */
const dragWindow = (view, dx, dy) => ({
  ...view,
  width: clamp(view.width + dx, 0.02, 2),
  center: clamp(view.center - dy, 0, 1),
});

/** Returns the view with its picture moved by (dx, dy), in shares of the picture, but not over its edges. */
const movePicture = (view, dx, dy) => {
  const limit = (view.zoom - 1) / 2;
  return { ...view, x: clamp(view.x + dx, -limit, limit), y: clamp(view.y + dy, -limit, limit) };
};

export const zoomView = (view, factor) => movePicture({ ...view, zoom: clamp(view.zoom * factor, 1, 8) }, 0, 0);

/** Renders the linear window as an SVG filter: exact, and the same in every browser. */
export const WindowFilter = ({ view }) => {
  const slope = 1 / view.width;
  const intercept = 0.5 - view.center * slope;
  const channels = ['R', 'G', 'B'].map((c) => h(`feFunc${c}`, { type: 'linear', slope, intercept }));
  return html`<svg class="filters" aria-hidden="true"><filter id="window" color-interpolation-filters="sRGB">
    <feComponentTransfer>${channels}</feComponentTransfer></filter></svg>`;
};

export class Viewer extends Component {
  state = { tries: 0 };

  onDrag = (event) => {
    if (!(event.buttons & 1)) return;
    const { width, height } = event.currentTarget.getBoundingClientRect();
    const [dx, dy] = [event.movementX / width, event.movementY / height];
    const { view, setView } = this.props;
    setView(event.shiftKey ? movePicture(view, dx, dy) : dragWindow(view, dx, dy));
  };

  onWheel = (event) => {
    event.preventDefault();
    if (event.ctrlKey) this.props.setView(zoomView(this.props.view, event.deltaY < 0 ? 1.1 : 1 / 1.1));
    else this.props.scroll(Math.sign(event.deltaY));
  };

  render({ src, view, setView, note, onLoaded }, { tries }) {
    const transform = `translate(${view.x * 100}%, ${view.y * 100}%) scale(${view.zoom})`;
    return html`<div class="viewer" onPointerMove=${this.onDrag} onWheel=${this.onWheel} onDblClick=${() => setView(RESET_VIEW)}
        onPointerDown=${(e) => e.currentTarget.setPointerCapture(e.pointerId)}>
      <img key=${`${src}?${tries}`} src=${`${src}?${tries}`} alt="the slice shown" draggable=${false} style=${{ transform }}
        onLoad=${() => onLoaded(src)} onError=${() => setTimeout(() => this.setState({ tries: tries + 1 }), RETRY_MS)} />
      ${note && html`<p class="note">${note}</p>`}
    </div>`;
  }
}
