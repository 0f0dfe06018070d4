// Publishing a product with a picture of one's own: from the form to the catalogue topic.
import { ask } from "./api.js";
import { h, toast } from "./dom.js";

const SIDE = 480; // Enough for a product page; far below the contract's 256 kB.

/** The picture, cut to a square and made small, on a canvas. */
async function draw(file, canvas) {
  const bitmap = await createImageBitmap(file);
  const side = Math.min(bitmap.width, bitmap.height);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, SIDE, SIDE);
  pen.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, SIDE, SIDE);
}

export function publishDialog({ categories }) {
  const canvas = h("canvas", { width: SIDE, height: SIDE, role: "img", "aria-label": "Preview of the picture" });
  let pictured = false;
  const choose = async ({ currentTarget: input }) => {
    try {
      await draw(input.files[0], canvas);
      pictured = true;
    } catch {
      pictured = false;
      toast("That file is no picture this browser can read.");
    }
    canvas.classList.toggle("filled", pictured);
  };
  const field = (text, input) => h("label", {}, h("span", {}, text), input);
  const send = async (event) => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    const item_id = `own-${Date.now().toString(36)}`;
    const body = {
      title: form.get("title"),
      description: form.get("description"),
      category: form.get("category"),
      price: Number(form.get("price")),
      stock: 25,
      ...(pictured && { thumbnail: canvas.toDataURL("image/jpeg", 0.85).split(",")[1] }),
    };
    try {
      await ask(`v1/items/${item_id}`, {}, { method: "PUT", body });
      dialog.close();
      toast("Published: it can be recommended from now on. ", h("a", { href: `#/product/${item_id}` }, "Look at it"));
    } catch (error) {
      toast(error.message);
    }
  };
  const dialog = h(
    "dialog.publish",
    { "aria-labelledby": "publish-title", close: () => dialog.remove() },
    h(
      "form",
      { submit: send },
      h("h2", { id: "publish-title" }, "Publish a product"),
      h("div.two", {}, h("div.preview", {}, canvas, field("Picture", h("input", { type: "file", accept: "image/*", change: choose }))), h(
        "div",
        {},
        field("Title", h("input", { name: "title", required: true, maxlength: 120 })),
        field("Category", h("select", { name: "category" }, categories.map(({ id, title }) => h("option", { value: id }, title)))),
        field("Price", h("input", { name: "price", type: "number", min: 0, step: "0.01", value: "49", required: true })),
        field("Description", h("textarea", { name: "description", rows: 3 })),
      )),
      h("div.buttons", {}, h("button.primary", { type: "submit" }, "Publish"), h("button", { type: "button", click: () => dialog.close() }, "Cancel")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}
