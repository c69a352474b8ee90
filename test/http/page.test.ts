/**
 * The page in a real browser, against a real server with real clients: what it says is compared with what
 * they did. Pictures of its main states are left in tmp/page/.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import type { Browser, Page } from 'playwright-core'
import { formatSize } from '../../src/lib/units.ts'
import { assertAccessible, skipWithoutBrowser, startBrowser } from '../support/browser.ts'
import { httpUrlOf, loginTo } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import type { Upserv } from '../support/upserv.ts'

const PICTURES = fileURLToPath(new URL('../../tmp/page', import.meta.url))
const PATIENCE_MS = 60_000
const PHONE = { width: 360, height: 740 }

describe('the page', { skip: skipWithoutBrowser }, () => {
  let mirror: Mirror
  let upserv: Upserv
  let base: string
  let browser: Browser
  let page: Page
  /** What the client itself printed of its update. */
  let literal: number
  let matched: number
  /** The cookie of who has logged in. */
  let session = ''
  const strangers: string[] = []
  const complaints: string[] = []

  const open = async (path = '/?lang=en', options: Parameters<Browser['newPage']>[0] = {}): Promise<Page> => {
    const opened = await browser.newPage({ locale: 'en-GB', ...options })
    opened.setDefaultTimeout(PATIENCE_MS)
    opened.on('request', (request) => {
      if (!request.url().startsWith(`${base}/`)) strangers.push(request.url())
    })
    opened.on('pageerror', ({ message }) => complaints.push(message))
    opened.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text())
    })
    const [name = '', value = ''] = session.split('=')
    if (session !== '') await opened.context().addCookies([{ name, value, url: base }])
    await opened.goto(base + path)
    await opened.locator('.pulse.live').waitFor()
    await opened.locator('[data-build]').first().waitFor()
    return opened
  }
  const picture = async (of: Page, name: string): Promise<void> => {
    await of.evaluate('scrollTo(0, 0)')
    await of.screenshot({ path: join(PICTURES, `${name}.png`), fullPage: true })
  }
  const sees = async (of: Page, selector: string, text: string | RegExp): Promise<void> => {
    await of.locator(selector).filter({ hasText: text }).first().waitFor()
  }

  before(async () => {
    mkdirSync(PICTURES, { recursive: true })
    mirror = new Mirror()
    const tree = randomTree(1, 12, 200_000)
    await mirror.publish('801', tree, { sha256: true })
    await mirror.publish('802', new Map([...tree, ...randomTree(2, 2, 200_000)]), { sha256: true })
    await mirror.publish('803', randomTree(3, 10, 400_000))
    await mirror.startNginx()
    const config = mirror.path('upserv.toml')
    writeFileSync(config, 'budget = "40MB"\n[channels]\nstable = "802"\n[rsync]\nmax_connections = 1\n')
    upserv = await mirror.startUpserv({ http: '127.0.0.1:0', config })
    base = httpUrlOf(upserv)
    const place = mirror.place()
    await rsyncSucceeds(['-aH', `${upserv.url}/build-801/root/`, place])
    const { stdout } = await rsyncSucceeds(['-aHzc', '--stats', `${upserv.url}/build-802/root/`, place])
    const figure = (name: string): number =>
      Number(new RegExp(`${name}: ([\\d,]+)`).exec(stdout)![1]!.replaceAll(',', ''))
    literal = figure('Literal data')
    matched = figure('Matched data')
    await rsyncEnds(5, [`${upserv.url}/build-404/`])
    assert.equal((await upserv.cli(['pin', '802'])).code, 0)
    browser = await startBrowser()
    session = await loginTo(base, mirror.data)
    page = await open()
  })
  after(async () => {
    await browser?.close()
    if (upserv?.process.isRunning) await upserv.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  test('builds are what is held', async () => {
    const listed = JSON.parse((await upserv.cli(['list', '--json'])).stdout) as {
      id: string
      bytes: number
      storedBytes: number
      accessed: string
      source: string
      url: string
    }[]
    const { budgetBytes } = JSON.parse((await upserv.cli(['status', '--json'])).stdout)
    assert.deepEqual(
      await page
        .locator('[data-build]')
        .evaluateAll((rows) => rows.map((row) => row.getAttribute('data-build'))),
      ['801', '802'],
    )
    for (const { id, bytes, storedBytes, accessed, source, url } of listed) {
      const row = page.locator(`[data-build="${id}"]`)
      await sees(page, `[data-build="${id}"]`, formatSize(bytes))
      await sees(page, `[data-build="${id}"]`, formatSize(storedBytes))
      await sees(page, `[data-build="${id}"]`, 'checked by sha256')
      assert.equal(await row.getByRole('switch').getAttribute('aria-checked'), String(id === '802'))
      assert.equal(await row.locator('time').getAttribute('datetime'), accessed)
      const link = row.getByRole('link', { name: source, exact: true })
      assert.equal(await link.getAttribute('href'), url)
      const share = await row.getByRole('progressbar').getAttribute('aria-valuenow')
      assert.equal(share, String(Math.round((storedBytes / budgetBytes) * 100)))
    }
    await sees(page, '[data-build="802"] .tag', 'stable')
    const status = JSON.parse((await upserv.cli(['status', '--json'])).stdout)
    await sees(page, '[data-tile="used"] .note', `${formatSize(status.usedBytes)} of 40 MB, 2 builds`)
    await sees(page, '[data-share="free"]', `Free ${formatSize(40e6 - status.usedBytes)}`)
    assert.match(
      (await page.getByRole('img', { name: 'Of 40 MB' }).getAttribute('aria-label'))!,
      /Sticky builds: .*Free: /,
    )
  })

  test('sessions are what clients did, and why', async () => {
    const [first, second, third] = [1, 2, 3].map((id) => page.locator(`[data-record="${id}"]`))
    const texts = await Promise.all([first!, second!, third!].map((item) => item.innerText()))
    assert.match(texts[0]!, /done 127\.0\.0\.1 · build 801/)
    assert.match(texts[1]!, /done 127\.0\.0\.1 · build 802/)
    assert.ok(texts[1]!.includes(`for ${formatSize(literal + matched)}`), texts[1]!)
    assert.match(texts[2]!, /refused 127\.0\.0\.1 · build 404/)
    assert.match(texts[2]!, /build-404 is not published/)
    await first!.getByRole('button', { name: 'Why?' }).click()
    await first!.locator('[data-hint="first-sync"]').waitFor()
    await second!.getByRole('button', { name: 'Why?' }).click()
    await sees(
      page,
      '[data-record="2"] .facts',
      `${formatSize(matched)} were there already, ${formatSize(literal)} were not`,
    )
    const activity = (await (await fetch(`${base}/api/v1/activity`)).json()) as {
      totals: Record<string, number>
    }
    const { bytesOut, matchedBytes, literalBytes } = activity.totals
    await sees(
      page,
      '[data-tile="saved"] .note',
      `${formatSize(bytesOut!)} sent for ${formatSize(matchedBytes! + literalBytes!)} of files`,
    )
    await sees(
      page,
      '#plot',
      `${formatSize(bytesOut!)} sent brought ${formatSize(matchedBytes! + literalBytes!)} of files up to date, in 3 sessions.`,
    )
    await picture(page, 'sessions-explained')
  })

  test('answers are worked out once, and reused for the next client that asks the same', async () => {
    const { totals } = (await (await fetch(`${base}/api/v1/activity`)).json()) as {
      totals: Record<'searched' | 'prepared' | 'reused', number>
    }
    const worked = totals.searched + totals.prepared
    assert.ok(worked > 0)
    const place = mirror.place()
    await rsyncSucceeds(['-aH', `${upserv.url}/build-801/root/`, place])
    const { stdout } = await rsyncSucceeds(['-aHzc', '--stats', `${upserv.url}/build-802/root/`, place])
    const transferred = Number(/files transferred: ([\d,]+)/.exec(stdout)![1]!)
    assert.ok(transferred > 0)
    const reused = totals.reused + transferred
    const share = Math.round((100 * reused) / (worked + reused))
    await sees(
      page,
      '[data-tile="answers"] .note',
      new RegExp(`^${reused} reused, ${worked} worked out \\(${totals.searched} search(?:es)?\\)$`),
    )
    await sees(page, '[data-tile="answers"] .value', new RegExp(`^${share}\\s?%$`))
  })

  test('who is connected, and what is on its way, is told as it happens', async () => {
    await mirror.nginx.stop()
    await mirror.startNginx('400k')
    const slow = mirror.client(upserv, '801', ['--bwlimit=150k', '-v', '--outbuf=L'])
    await slow.client.waitForLine(/^file-1$/)
    await sees(page, '[data-session]', /build 801.*transferring · \d+ %/s)
    const waiting = mirror.client(upserv, '802')
    await sees(page, '[data-session]', /build 802.*number 1 in line/s)
    const fetching = mirror.client(upserv, '803')
    await sees(page, '[data-fetch="803"]', /downloading · .* of 4(?:\.\d+)? MB · \d+ %/)
    await sees(page, '[data-fetch="803"]', /\/s · .* left/)
    await sees(page, '[data-fetch="803"]', '1 waits for it')
    await sees(page, '[data-session]', /build 803.*waiting for its build/s)
    await sees(page, '[data-tile="connected"]', /3.*1 transferring, 1 in line/s)
    await sees(page, '[data-build="801"] .tag', 'in use')
    assert.match(await page.title(), /^\(3\) upserv$/)
    const bar = page.locator('[data-session] [role=progressbar]').first()
    assert.ok(Number(await bar.getAttribute('aria-valuenow')) > 0)
    await assertAccessible(page, 'busy')
    await picture(page, 'busy')
    slow.client.kill()
    await sees(page, '#sessions .item', /broke off 127\.0\.0\.1 · build 801/)
    await waiting.client.ends(0)
    await fetching.client.ends(0)
    await sees(page, '#sessions .item', /done 127\.0\.0\.1 · build 803/)
    await sees(page, '[data-build="803"]', '4 MB')
    await sees(page, '#fetch-ends', `fetched 803 from`)
    assert.ok(
      (await page.locator('#fetch-ends').innerText()).includes(
        formatSize(statSync(mirror.archive('803')).size),
      ),
    )
    await page.locator('#clients-empty').waitFor()
  })

  test('a visitor sees what goes on, and not who; how to log in is said; who logs out leaves nothing behind', async () => {
    const operators = session
    session = ''
    const visitor = await open()
    session = operators
    const sections = ['#clients', '#sessions', '#fetches', '#fetch-ends', '#builds']
    const words = async (of: Page): Promise<string> =>
      (await Promise.all(sections.map((id) => of.locator(id).innerText()))).join('\n')
    await sees(visitor, '#visitor', '“upserv token” prints it')
    await sees(visitor, '#sessions .item', /done a device · build 802/)
    for (const hidden of ['#filter', '#older', '#forget', '#fetches-older', '#fetches-forget'])
      assert.ok(await visitor.locator(hidden).isHidden(), hidden)
    assert.ok(await visitor.locator('#sessions .item button').first().isHidden())
    assert.doesNotMatch(await words(visitor), /127\.0\.0\.1 ·|unknown|undefined/)
    const slow = mirror.client(upserv, '802', ['--bwlimit=150k', '-v', '--outbuf=L'])
    await sees(visitor, '#clients', /a device\s*build 802/)
    await assertAccessible(visitor, 'visitor')
    await picture(visitor, 'visitor')

    await visitor.locator('#visitor-login').click()
    await visitor.getByLabel('Token').fill(readFileSync(join(mirror.data, 'http.token'), 'utf8').trim())
    await visitor.keyboard.press('Enter')
    await sees(visitor, '#clients', /127\.0\.0\.1\s*build 802/)
    slow.client.kill()
    await sees(visitor, '#sessions .item', /127\.0\.0\.1 · build 802/)
    assert.ok(await visitor.locator('#visitor').isHidden())
    // Who looks into the history, opens an explanation, and leaves.
    await visitor.locator('#filter-address').fill('127.0.0.1')
    await visitor.getByRole('button', { name: 'Show' }).click()
    await visitor.locator('a[href="/api/v1/history.csv?address=127.0.0.1"]').waitFor()
    await visitor.locator('[data-record="2"]').getByRole('button').click()
    await sees(visitor, '[data-record="2"] .facts', 'root/')
    await visitor.locator('#login').click()
    await sees(visitor, '#visitor', 'You look on as a visitor.')
    await sees(visitor, '#sessions .item', /done a device · build 802/)
    assert.doesNotMatch(await words(visitor), /127\.0\.0\.1 ·|root\//)
    assert.equal(await visitor.locator('#filter-address').inputValue(), '')

    // A token that is another one by now ends sessions, and the page notices by itself.
    await visitor.locator('#login').click()
    await visitor.getByLabel('Token').fill(readFileSync(join(mirror.data, 'http.token'), 'utf8').trim())
    await visitor.keyboard.press('Enter')
    await sees(visitor, '#sessions .item', '127.0.0.1 · build 802')
    assert.equal((await upserv.cli(['token', '--new'])).code, 0)
    await sees(visitor, '#visitor', 'You look on as a visitor.')
    await visitor.close()
    session = await loginTo(base, mirror.data)
    const [name = '', value = ''] = session.split('=')
    await page.context().addCookies([{ name, value, url: base }])
    await page.reload()
    await sees(page, '#sessions .item', '127.0.0.1 · build 802')
  })

  test('by keyboard alone: a wrong token changes nothing, the right one does', async () => {
    const sticky = join(mirror.data, 'builds', '801', 'sticky')
    await page.getByRole('button', { name: 'Log out' }).click()
    await page.getByRole('button', { name: 'Log in', exact: true }).waitFor()
    const focused = (): Promise<string> =>
      page.evaluate(`document.activeElement.getAttribute('aria-label') ?? document.activeElement.id`)
    const tabTo = async (name: string): Promise<void> => {
      for (let steps = 0; (await focused()) !== name; steps++) {
        assert.ok(steps < 100, `nothing leads to "${name}"`)
        await page.keyboard.press('Tab')
      }
    }
    await page.evaluate('document.activeElement.blur()')
    await tabTo('Sticky: build 801')
    await page.keyboard.press('Space')
    await page.getByRole('dialog', { name: 'Pin build 801?' }).waitFor()
    assert.equal(await focused(), 'token')
    await page.keyboard.type('this-is-not-the-token')
    await page.keyboard.press('Enter')
    await page.getByRole('alert').filter({ hasText: 'This is not the token.' }).waitFor()
    assert.ok(!existsSync(sticky))
    await page.keyboard.press('Escape')
    assert.equal(await focused(), 'Sticky: build 801', 'focus goes back to where it was')
    await page.keyboard.press('Space')
    await assertAccessible(page, 'dialog')
    await picture(page, 'dialog')
    await page.keyboard.type(readFileSync(join(mirror.data, 'http.token'), 'utf8').trim())
    await page.keyboard.press('Enter')
    await sees(page, '#said', 'Build 801 is sticky.')
    await page.locator('[data-build="801"] [role=switch][aria-checked=true]').waitFor()
    assert.ok(existsSync(sticky))
    // From now on it is known: only whether it should be done is asked.
    await page.keyboard.press('Space')
    await page.getByRole('dialog', { name: 'Unpin build 801?' }).waitFor()
    await tabTo('dialog-ok')
    await page.keyboard.press('Enter')
    await sees(page, '#said', 'Build 801 is not sticky any more.')
    assert.ok(!existsSync(sticky))
    await tabTo('Remove build 801')
    await page.keyboard.press('Enter')
    await tabTo('dialog-ok')
    await page.keyboard.press('Enter')
    await sees(page, '#said', 'Build 801 is removed.')
    await page.locator('[data-build="801"]').waitFor({ state: 'detached' })
    assert.ok(!existsSync(join(mirror.data, 'builds', '801')))
    await tabTo('fetch-id')
    await page.keyboard.type('801')
    await page.keyboard.press('Enter')
    await page.getByRole('dialog', { name: 'Fetch build 801?' }).waitFor()
    await tabTo('dialog-ok')
    await page.keyboard.press('Enter')
    await page.locator('[data-build="801"]').waitFor()
    assert.ok(existsSync(join(mirror.data, 'builds', '801')))
  })

  test('verify and clean up', async () => {
    await page.getByRole('button', { name: 'Verify all' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Verify' }).click()
    await sees(page, '#verification', /Verified all builds: .* were read\. All is as it was\./)
    await page.getByRole('button', { name: 'Clean up' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Look' }).click()
    await sees(page, '#dialog', /would be freed; 0 builds would go\./)
    await page.getByRole('dialog').getByRole('button', { name: 'Clean up' }).click()
    await sees(page, '#said', /were freed, 0 builds went\./)
  })

  test('the history is looked through, and forgotten', async () => {
    for (const [text, query] of [
      ['laptop-7', 'device=laptop-7'],
      ['127.0.0.1', 'address=127.0.0.1'],
      ['', ''],
    ] as const) {
      await page.getByLabel('Device').fill(text)
      await page.getByRole('button', { name: 'Show' }).click()
      await page.locator(`a[href="/api/v1/history.csv${query && `?${query}`}"]`).waitFor()
    }
    await page.getByLabel('Outcome').selectOption('lost')
    await page.getByRole('button', { name: 'Show' }).click()
    await page.locator('#sessions .item').filter({ hasText: 'done' }).first().waitFor({ state: 'detached' })
    assert.equal(await page.locator('#sessions .item').count(), 2)
    assert.equal(
      await page.getByRole('link', { name: 'CSV', exact: true }).getAttribute('href'),
      '/api/v1/history.csv?outcome=lost',
    )
    await page.getByRole('button', { name: 'Forget', exact: true }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Forget' }).click()
    await sees(page, '#said', '2 sessions are forgotten.')
    session = await loginTo(base, mirror.data)
    const history = await fetch(`${base}/api/v1/history?outcome=lost`, { headers: { cookie: session } })
    const { items } = (await history.json()) as { items: unknown[] }
    assert.deepEqual(items, [])
    assert.equal(await page.locator('#sessions .item').filter({ hasText: 'broke off' }).count(), 0)
  })

  test('fetches that ended are looked through, and forgotten', async () => {
    await page.getByRole('button', { name: 'Older fetches' }).click()
    await sees(page, '#fetch-ends .item', 'fetched 801 from')
    assert.ok((await page.locator('#fetch-ends .item').count()) > 3 - 1)
    await assertAccessible(page, 'fetches')
    await page.getByRole('button', { name: 'Forget fetches' }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Forget' }).click()
    await sees(page, '#said', 'are forgotten.')
    await page.locator('#fetch-ends .item').first().waitFor({ state: 'detached' })
  })

  test('on a phone, in Spanish, in the dark', async () => {
    const phone = await open('/?lang=es', {
      viewport: PHONE,
      colorScheme: 'dark',
      isMobile: true,
      hasTouch: true,
    })
    assert.equal(await phone.locator('html').getAttribute('lang'), 'es')
    await sees(phone, '[data-tile="used"]', 'Presupuesto usado')
    await sees(phone, '[data-build="802"]', 'comprobada con sha256')
    await phone.locator('[data-record] button').first().click()
    await phone.locator('[data-hint]').first().waitFor()
    const words = (await phone.locator('body').innerText()).replaceAll(/build-\d+/g, '')
    assert.doesNotMatch(words, /\{\w+\}|undefined|NaN|\[object|\b(?:builds?|sessions?|sent|nobody)\b/i)
    for (const width of [320, PHONE.width]) {
      await phone.setViewportSize({ ...PHONE, width })
      assert.equal(await phone.evaluate('document.documentElement.scrollWidth'), width, 'nothing sticks out')
    }
    const small = await phone
      .locator('button:visible, a.button:visible, select:visible, input:visible')
      .evaluateAll((controls) =>
        controls
          .filter((control) => control.getBoundingClientRect().height < 24)
          .map((control) => control.outerHTML),
      )
    assert.deepEqual(small, [], 'fingers are wide')
    await assertAccessible(phone, 'phone')
    await picture(phone, 'phone-es-dark')
    await phone.getByLabel('Idioma').selectOption('en')
    await sees(phone, '[data-tile="used"]', 'Budget used')
    await sees(phone, '[data-build="802"]', 'checked by sha256')
    await phone.reload()
    await phone.close()
  })

  test('light, dark and without anything held', async () => {
    const dark = await open('/?lang=en', { colorScheme: 'dark' })
    await assertAccessible(dark, 'dark')
    await picture(dark, 'dark')
    await dark.close()
    await assertAccessible(page, 'light')
    await picture(page, 'light')
  })

  test('a build that is damaged is told of, until it is whole again', async () => {
    const packs = join(mirror.data, 'packs')
    for (const name of readdirSync(packs)) {
      const path = join(packs, name)
      const bytes = readFileSync(path)
      const at = Math.floor(bytes.length / 2)
      bytes[at] = bytes[at]! ^ 1
      writeFileSync(path, bytes)
    }
    assert.notEqual((await upserv.cli(['verify'])).code, 0)
    const { damaged } = JSON.parse((await upserv.cli(['status', '--json'])).stdout) as { damaged: string[] }
    assert.ok(damaged.length > 0)
    const plural = damaged.length === 1 ? 'Build' : 'Builds'
    await sees(
      page,
      '#alerts .alert.bad',
      `${plural} ${damaged.join(', ')} ${damaged.length === 1 ? 'is' : 'are'} damaged.`,
    )
    for (const id of damaged) await sees(page, `[data-build="${id}"] .tag`, 'damaged')
    await assertAccessible(page, 'damaged')
    await picture(page, 'damaged')
    // Without the limit from before.
    await mirror.nginx.stop()
    await mirror.startNginx()
    assert.equal((await upserv.cli(['verify', '--repair'])).code, 0)
    await page.locator('#alerts .alert').waitFor({ state: 'detached' })
  })

  test('the browser is told to run nothing from elsewhere, and loads nothing from elsewhere', async () => {
    const { headers } = await fetch(base)
    const policy = headers.get('content-security-policy')!
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self';/)
    assert.doesNotMatch(policy, /unsafe|\*|http|data:/)
    assert.deepEqual(strangers, [])
    assert.deepEqual(
      complaints.filter((text) => !/40[19]/.test(text)),
      [],
    )
    const html = await (await fetch(base)).text()
    assert.doesNotMatch(html, /<script(?![^>]* src=)| on\w+="| style="|https?:\/\//)
  })

  test('when the server goes away the page says so, and comes back with it', async () => {
    const { port, host } = new URL(base)
    await upserv.stop()
    await sees(page, '#alerts', 'The connection to the server is broken.')
    await picture(page, 'broken')
    upserv = await mirror.startUpserv({ http: host, rsync: `127.0.0.1:${upserv.port}` })
    assert.ok(port)
    await page.locator('.pulse.live').waitFor()
    await page.locator('#alerts .alert').waitFor({ state: 'detached' })
  })
})

test('every language says the same things', async () => {
  const load = async (language: string): Promise<Record<string, string | Record<string, string>>> => {
    const path = new URL(`../../src/http/page/texts/${language}.js`, import.meta.url).href
    return ((await import(path)) as { default: Record<string, string> }).default
  }
  const [en, es] = [await load('en'), await load('es')]
  assert.deepEqual(Object.keys(es).sort(), Object.keys(en).sort())
  const forms = (text: string | Record<string, string>): string[] =>
    typeof text === 'string' ? [text] : Object.values(text)
  for (const [key, text] of Object.entries(en)) {
    const names = (all: string[]): string[] =>
      [...new Set(all.flatMap((one) => one.match(/\{\w+\}/g) ?? []))].sort()
    assert.deepEqual(names(forms(es[key]!)), names(forms(text)), key)
    assert.ok(forms(es[key]!).every((one) => one !== ''))
  }
})
