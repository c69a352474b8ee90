/** /metrics, as promtool and a scrape see them; examples of what to make of them. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { findProgram } from '../../src/lib/find-program.ts'
import { makeCertificate } from '../support/certificates.ts'
import { httpUrlOf } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { run, ServerProcess } from '../support/processes.ts'
import { rsyncEnds } from '../support/rsync.ts'
import { UPSERV, type Upserv } from '../support/upserv.ts'

const skip = (await findProgram('promtool')) ? false : 'promtool is not installed (Debian: prometheus)'
const example = (name: string): string => fileURLToPath(new URL(`../../examples/${name}`, import.meta.url))

describe('metrics', { skip }, () => {
  let mirror: Mirror
  let upserv: Upserv
  const scrape = async (): Promise<string> => {
    const response = await fetch(`${httpUrlOf(upserv)}/metrics`)
    assert.match(response.headers.get('content-type')!, /^text\/plain; version=0\.0\.4/)
    return response.text()
  }

  before(async () => {
    mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 10_000))
    await mirror.startNginx()
    upserv = await mirror.startUpserv({ http: '127.0.0.1:0' })
    await mirror.assertServes(upserv, '1')
    await rsyncEnds(5, [`${upserv.url}/build-404/`])
    await rsyncEnds(0, [`${upserv.url}/`])
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  test('promtool finds nothing to say about them', async () => {
    const { code, stdout, stderr } = await run('promtool', ['check', 'metrics'], { input: await scrape() })
    // Those of the process itself are prom-client's, and are named as Node has named them for years.
    const ours = (stdout + stderr).split('\n').filter((line) => line !== '' && !line.startsWith('nodejs_'))
    assert.deepEqual(ours, [])
    assert.ok(code === 0 || code === 3, `${code}`)
  })

  test('they say what happened, and say the same when they are asked again', async () => {
    for (let times = 0; times < 2; times++) {
      const text = await scrape()
      const value = (name: string): number => {
        const line = text.split('\n').find((one) => one.startsWith(`${name} `))
        assert.ok(line, `${name} is not there`)
        return Number(line.slice(name.length + 1))
      }
      assert.equal(value('upserv_sessions_total{outcome="done"}'), 1)
      assert.equal(value('upserv_sessions_total{outcome="listed"}'), 1)
      assert.equal(value('upserv_sessions_total{outcome="refused"}'), 1)
      assert.equal(value('upserv_session_failures_total{code="BUILD_NOT_PUBLISHED"}'), 1)
      assert.equal(value('upserv_fetches_total{outcome="done"}'), 1)
      assert.equal(value('upserv_fetch_failures_total{code="BUILD_NOT_PUBLISHED"}'), 1)
      // There before the first: what begins with 1 has not increased, and an alert would not see it.
      assert.equal(value('upserv_fetch_failures_total{code="STORE_NO_ROOM"}'), 0)
      assert.equal(value('upserv_fetch_failures_total{code="INTERNAL"}'), 0)
      assert.equal(value('upserv_session_failures_total{code="PEER_PROTOCOL"}'), 0)
      assert.equal(value('upserv_content_bytes_total{kind="literal"}'), 50_000)
      assert.equal(value('upserv_builds_held'), 1)
      assert.equal(value('upserv_budget_bytes'), 16e9)
      assert.equal(value('upserv_session_duration_seconds_count'), 1)
      assert.ok(value('upserv_used_bytes{what="builds"}') > 50_000)
      assert.ok(value('upserv_session_bytes_total{direction="out"}') > 50_000)
      assert.ok(value('nodejs_eventloop_lag_p99_seconds') >= 0)
    }
  })

  test('the rules of the example are rules, and speak of metrics that there are', async () => {
    const { code, stdout, stderr } = await run('promtool', [
      'check',
      'rules',
      example('prometheus-rules.yml'),
    ])
    assert.equal(code, 0, stdout + stderr)
    const known = new Set((await scrape()).matchAll(/^# TYPE (\S+)/gm).map(([, name]) => name!))
    for (const name of ['prometheus-rules.yml', 'grafana-dashboard.json']) {
      const used = readFileSync(example(name), 'utf8').match(/\b(?:upserv|nodejs|process)_[a-z0-9_]+/g)!
      assert.ok(used.length > 5)
      for (const metric of used)
        assert.ok(known.has(metric.replace(/_(?:bucket|sum|count)$/, '')), `${name}: there is no ${metric}`)
    }
    JSON.parse(readFileSync(example('grafana-dashboard.json'), 'utf8'))
  })

  test('the alerts of the example go off when they should', async () => {
    const { code, stdout, stderr } = await run('promtool', [
      'test',
      'rules',
      example('prometheus-rules.test.yml'),
    ])
    assert.equal(code, 0, stdout + stderr)
  })

  test('/readyz says that clients should come', async () => {
    const response = await fetch(`${httpUrlOf(upserv)}/readyz`)
    assert.deepEqual([response.status, await response.text()], [200, 'ready\n'])
  })
})

for (const [how, rsyncTls, status, text] of [
  ['TLS alone', '127.0.0.1:0', 200, 'ready\n'],
  ['nothing', 'off', 503, 'nothing listens for rsync\n'],
] as const) {
  test(`/readyz says whether clients should come: ${how} listens for rsync`, async () => {
    await using mirror = new Mirror()
    await makeCertificate(mirror.path())
    const config = mirror.path('upserv.toml')
    writeFileSync(config, `[tls]\ncert = "${mirror.path('cert.pem')}"\nkey = "${mirror.path('key.pem')}"\n`)
    const ports = ['--rsync', 'off', '--rsync-tls', rsyncTls, '--http', '127.0.0.1:0']
    const server = new ServerProcess(UPSERV, ['serve', '--data', mirror.data, '--config', config, ...ports])
    try {
      const [, url] = await server.waitForOutput('stdout', /^listening .*(http:\S+)$/m)
      await server.waitForOutput('stderr', /"store open"/)
      const response = await fetch(new URL('/readyz', url))
      assert.deepEqual([response.status, await response.text()], [status, text])
    } finally {
      await server.stop('SIGTERM')
    }
  })
}

test('answers and evictions are counted as they were', async () => {
  await using mirror = new Mirror()
  const files = 3
  await mirror.publish('1', randomTree(1, files, 1_000_000))
  await mirror.publish('2', randomTree(2, files, 1_000_000))
  await mirror.startNginx()
  const config = mirror.path('upserv.toml')
  const source = `[[source]]\nname = "mirror"\nurl = "${mirror.nginx.url}/{build}"\n`
  writeFileSync(config, `budget = "1GB"\n${source}`)
  const upserv = await mirror.startUpserv({ http: '127.0.0.1:0', config, sources: [] })
  try {
    const [one, other] = [mirror.place(), mirror.place()]
    for (const place of [one, other]) await rsyncEnds(0, ['-a', `${upserv.url}/build-1/root/`, place])
    const update = async (place: string): Promise<number> => {
      const { stdout } = await rsyncEnds(0, ['-ac', '--stats', `${upserv.url}/build-2/root/`, place])
      return Number(/files transferred: (\d+)/.exec(stdout)![1])
    }
    assert.deepEqual(await countsOf(upserv), { searched: 0, prepared: 0, reused: 0, evictions: 0 })
    const asked = await update(one)
    const first = await countsOf(upserv)
    // The second name of a hard link is a file of its own without -H, and has its answer from the first.
    assert.equal(asked, files + 1)
    assert.deepEqual(first, { searched: files, prepared: 0, reused: 1, evictions: 0 })
    assert.equal(await update(other), asked)
    const second = await countsOf(upserv)
    assert.deepEqual(second, { ...first, reused: 1 + asked })
    // Room for one of them.
    writeFileSync(config, `budget = "5MB"\n${source}`)
    assert.equal((await upserv.cli(['reload'])).code, 0)
    assert.deepEqual(await countsOf(upserv), { ...second, evictions: 1 })
  } finally {
    await upserv.stop()
  }
})

async function countsOf(upserv: Upserv): Promise<Record<string, number>> {
  const text = await (await fetch(`${httpUrlOf(upserv)}/metrics`)).text()
  const lines = text.matchAll(/^upserv_(?:answers_total\{how="(\w+)"\}|(evictions)_total) (\d+)$/gm)
  return Object.fromEntries([...lines].map(([, how, what, value]) => [how ?? what!, Number(value)]))
}
