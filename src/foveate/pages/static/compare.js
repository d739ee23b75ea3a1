// Compare: what `foveate compare` measures, shown and saved as the page that it writes.
import { element, out, Task, work } from "./tools.js";
import { translated, word } from "./words.js";

export function compare(section) {
  const form = section.querySelector("form"), task = new Task(section);
  form.onsubmit = (event) => {
    event.preventDefault();
    const models = [form.model.value, form.against.value].filter((name, at, all) => name && all.indexOf(name) === at);
    delete section.dataset.ready;
    task.run(async (signal) => {
      let note = "";
      const found = await work("compare", { models, effort: form.effort.value }, (told) => task.say(translated((note = told.note ?? note)) || word("working"), null), signal);
      out(section, "report").replaceChildren(element("iframe", { sandbox: "", title: `${word("report")}: ${found.title}`, srcdoc: found.html }));
      const save = out(section, "save");
      URL.revokeObjectURL(save.href);
      save.href = URL.createObjectURL(new Blob([found.html], { type: "text/html" }));
      save.download = `${found.title.replace(/[^\w.-]+/g, "-")}.html`;
      save.hidden = false;
      section.report = found;
      section.dataset.ready = models.length;
    });
  };
  return {};
}
