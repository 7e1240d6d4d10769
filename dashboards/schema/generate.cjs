// See generate.sh. Writes the three files into the folder given.
const fs = require('fs');
const path = require('path');
const { createGenerator } = require('ts-json-schema-generator');
const { JSDOM } = require('jsdom');

const target = process.argv[2];
const types = 'node_modules/@grafana/schema/dist/types/raw';
const PANELS = {
  timeseries: 'timeseries', stat: 'stat', bargauge: 'bargauge', table: 'table',
  heatmap: 'heatmap', 'state-timeline': 'statetimeline',
};

function schema(file, type) {
  const made = createGenerator({ path: file, type, skipTypeCheck: true }).createSchema(type);
  return JSON.parse(JSON.stringify(made, (key, value) =>
    key === 'description' && typeof value === 'string' ? undefined : value));
}

function write(name, value) {
  fs.writeFileSync(path.join(target, name), JSON.stringify(value) + '\n');
}

write('dashboard.json', schema(`${types}/dashboard/x/types.gen.d.ts`, 'Dashboard'));

const panels = {};
for (const [panel, folder] of Object.entries(PANELS)) {
  const file = `${types}/composable/${folder}/panelcfg/x/types.gen.d.ts`;
  const text = fs.readFileSync(file, 'utf8');
  panels[panel] = {};
  for (const type of ['Options', 'FieldConfig']) {
    if (text.includes(`interface ${type} `)) panels[panel][type] = schema(file, type);
  }
}
write('panels.json', panels);

// @grafana/data wants a browser's globals
const { window } = new JSDOM('', { url: 'http://localhost/' });
for (const name of ['document', 'navigator', 'HTMLElement', 'Element', 'localStorage', 'DOMParser']) {
  Object.defineProperty(globalThis, name, { value: window[name], configurable: true });
}
globalThis.window = window;
const data = require('@grafana/data');
write('registries.json', {
  version: require('@grafana/data/package.json').version,
  units: data.getValueFormats().flatMap((group) => group.submenu.map((unit) => unit.value)),
  reducers: data.fieldReducers.list().map((reducer) => reducer.id),
  transformers: [...new Set(Object.values(data.standardTransformers).map((one) => one.id))],
});
