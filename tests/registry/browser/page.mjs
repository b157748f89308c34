// Opens the registry's page and prints, line by line, what it shows, until every proof is there; what it asks other hosts
// for is printed too.

import { chromium } from 'playwright-core';

const [, , executablePath, url, ...proof] = process.argv;
const expected = proof.map((pattern) => new RegExp(pattern));

const browser = await chromium.launch({
  executablePath,
  headless: true,
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run'],
});
try {
  const page = await browser.newPage();
  page.on('dialog', (dialog) => {
    console.log(`dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('pageerror', (error) => console.log(`page error: ${error.message}`));
  page.on('request', (request) => {
    if (!request.url().startsWith(url) && !request.url().startsWith('data:')) console.log(`foreign: ${request.url()}`);
  });
  await page.goto(`${url}/dashboard`);
  const until = Date.now() + 15000;
  let text = '';
  while (Date.now() < until) {
    text = await page.innerText('body');
    if (expected.every((each) => each.test(text))) break;
    await page.waitForTimeout(100);
  }
  console.log(text);
} finally {
  await browser.close();
}
