/** A parent server as a source: what it says is checked, and what came of it is kept. test/parent has real ones. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import test, { type TestContext } from 'node:test'
import { zstdCompressSync } from 'node:zlib'
import { createSource } from '../../src/source/create.ts'
import type { Offer, ParentSource } from '../../src/source/parent.ts'
import { SPAN_HEAD_BYTES } from '../../src/source/parent-wire.ts'
import type { SourceEvent } from '../../src/source/source.ts'
import type { Spool } from '../../src/source/spool.ts'
import { type Reply, startUpstream } from './source-upstream.ts'

const BLOB = Buffer.from('all that is in it')
const MANIFEST = Buffer.from('a manifest')

const line = (value: object): Buffer => Buffer.from(`${JSON.stringify(value)}\n`)

const sends =
  (...pieces: Uint8Array[]): Reply =>
  (request, response) => {
    request.resume()
    response.end(Buffer.concat(pieces))
  }

function describes(): Reply {
  const body = zstdCompressSync(MANIFEST)
  const build = {
    ...{ bytes: MANIFEST.length, sent: body.length, base: null, url: 'http://far/1', vouchers: [] },
    ...{ contentsSha256: '0'.repeat(64), contentsBytes: 0 },
  }
  return sends(line({ build }), body)
}

function sendsBlob(): Reply {
  const frame = zstdCompressSync(BLOB)
  const head = Buffer.alloc(SPAN_HEAD_BYTES)
  head.writeUInt32LE(BLOB.length, 0)
  head.writeUInt32LE(frame.length, 4)
  return sends(head, frame)
}

interface Asking {
  source: ParentSource
  events: SourceEvent[]
  waits: number[]
  requests: readonly string[]
}

async function ask(t: TestContext, script: Record<string, Reply[]>): Promise<Asking> {
  const upstream = await startUpstream(t, script)
  const waits: number[] = []
  const source = createSource(
    {
      ...{ name: 'above', builds: '^[0-9]+$', url: upstream.url.replace('http:', 'upserv:') },
      ...{ checksum: undefined, contents: undefined },
    },
    { clock: { random: () => 1, sleep: async (ms) => void waits.push(ms) } },
  )
  assert.equal(source.kind, 'parent')
  return { source: source as ParentSource, events: [], waits, requests: upstream.requests }
}

const offer = ({ source, events }: Asking, signal = new AbortController().signal): Promise<Offer> =>
  source.offer('1', { held: [], signal, onEvent: (event) => events.push(event) })

/** A spool that can't be used, as the disk is full or whoever asks for room was told to stop. */
class Failing {
  discarded = 0
  readonly bytes = 0
  readonly #at: 'open' | 'append'
  readonly #onFail: () => void

  constructor(at: 'open' | 'append', onFail: () => void) {
    this.#at = at
    this.#onFail = onFail
  }

  async open(): Promise<number> {
    this.#failAt('open')
    return 0
  }

  async append(): Promise<void> {
    this.#failAt('append')
  }

  async discard(): Promise<void> {
    this.discarded++
  }

  #failAt(step: 'open' | 'append'): void {
    if (step !== this.#at) return
    this.#onFail()
    throw new Error('no room')
  }
}

for (const at of ['open', 'append'] as const) {
  const beginDownload = async (t: TestContext, onFail: (stop: AbortController) => void) => {
    const stop = new AbortController()
    const asking = await ask(t, {
      '/parent/v1/builds/1': [describes()],
      '/parent/v1/builds/1/blobs': [sendsBlob()],
    })
    const { blobs } = await offer(asking, stop.signal)
    const spool = new Failing(at, () => onFail(stop))
    const digest = createHash('sha256').update(BLOB).digest()
    const bytes = blobs([{ digest, size: BLOB.length, base: undefined }], {
      spool: spool as unknown as Spool,
      readBase: async () => undefined,
    })
    return { asking, spool, bytes }
  }

  test(`a fetch that is told to stop keeps what an earlier one has downloaded: ${at}`, async (t) => {
    const reason = new Error('the server is stopping')
    const { asking, spool, bytes } = await beginDownload(t, (stop) => stop.abort(reason))
    await assert.rejects(Array.fromAsync(bytes), reason)
    assert.equal(spool.discarded, 0)
    assert.deepEqual(asking.events, [])
  })

  test(`a spool that fails by itself goes, and the download goes on: ${at}`, async (t) => {
    const { asking, spool, bytes } = await beginDownload(t, () => {})
    assert.deepEqual(Buffer.concat(await Array.fromAsync(bytes)), BLOB)
    assert.equal(spool.discarded, 1)
    assert.deepEqual(asking.events, [{ type: 'spool-stopped', reason: 'no room' }])
  })
}
test('a parent that is too busy by the time that the build is there is asked again', async (t) => {
  const busy = line({ error: { code: 'SERVER_BUSY', message: 'max connections (16) reached' } })
  const asking = await ask(t, { '/parent/v1/builds/1': [sends(line({ say: 'wait' }), busy), describes()] })
  assert.deepEqual(Buffer.from((await offer(asking)).manifest), MANIFEST)
  assert.deepEqual([asking.waits.length, asking.requests.length], [1, 2])
})

test('a time that no calendar has, or that is far off, is as good as none', async (t) => {
  const times = ['2026-05-06T07:08:09.123Z', '2026-02-30T00:00:00Z', '+020000-01-01T00:00:00Z', '-1', null]
  const builds = times.map((published, i) => ({ id: String(i), published }))
  const { source } = await ask(t, { '/parent/v1/builds': [sends(line({ builds, complete: true }))] })
  const listing = await source.list(new AbortController().signal)
  assert.deepEqual(
    listing.builds.map(({ published }) => published?.toISOString()),
    ['2026-05-06T07:08:09.000Z', undefined, undefined, undefined, undefined],
  )
})
