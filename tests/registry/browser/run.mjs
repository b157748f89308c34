// Runs example.js of a folder in a page of its own and prints what it logs, until every proof is there.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const folder = process.argv[2];
const { browser: executablePath, proof, patience } = JSON.parse(readFileSync(join(folder, 'run.json'), 'utf8'));
const expected = proof.map((pattern) => new RegExp(pattern));

const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-default-apps',
    '--disable-features=LocalNetworkAccessChecks',
    '--disable-sync',
    '--no-first-run',
  ],
});

try {
  const page = await browser.newPage();
  let done;
  const proven = new Promise((resolve) => (done = resolve));
  let at = 0;
  const say = (line) => {
    for (const each of line.split('\n')) console.log(each);
    while (at < expected.length && expected[at].test(line)) at += 1;
    if (at === expected.length) done();
  };
  let told = Promise.resolve();
  page.on('console', (message) => {
    // An object as its JSON, not as the preview the console shows; in the order they came.
    told = told.then(async () => {
      const parts = await Promise.all(message.args().map((part) => part.jsonValue().catch(() => '?')));
      say(parts.map((part) => (typeof part === 'string' ? part : JSON.stringify(part))).join(' ') || message.text());
    });
  });
  page.on('pageerror', (error) => console.log(`page error: ${error.message}`));
  // A blank page of the registry's own origin.
  await page.route('http://localhost:8001/blank', (route) => route.fulfill({ contentType: 'text/html', body: '' }));
  await page.goto('http://localhost:8001/blank');
  await page.addScriptTag({ content: readFileSync(join(folder, 'example.js'), 'utf8') });
  await Promise.race([proven, new Promise((resolve) => setTimeout(resolve, patience).unref())]);
} finally {
  await browser.close();
}
