import assert from 'node:assert/strict'
import { readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type TestContext } from 'node:test'
import { makeScratch } from '../../test/support/scratch.ts'
import { Spool, type SpoolKey } from './spool.ts'

const KEY: SpoolKey = { url: 'http://h/a', version: { etag: '"a"', lastModified: undefined, size: 10 } }

function scratchDir(t: TestContext): string {
  const scratch = makeScratch('spool')
  t.after(() => scratch[Symbol.dispose]())
  return join(scratch.path, '802.spool')
}

async function text(spool: Spool): Promise<string> {
  return Buffer.concat(await Array.fromAsync(spool.prefix())).toString()
}

/** A directory in which an earlier process has left 5 of 10 bytes, closed or not. */
async function leftBehind(t: TestContext, { closed }: { closed: boolean }): Promise<string> {
  const dir = scratchDir(t)
  const spool = new Spool(dir)
  assert.equal(await spool.held(KEY.url), undefined)
  assert.equal(await spool.open(KEY), 0)
  await spool.append(Buffer.from('012'))
  await spool.append(Buffer.from('34'))
  assert.equal(spool.bytes, 5)
  if (closed) await spool.close()
  else t.after(() => spool.close())
  return dir
}

async function editNote(dir: string, changes: object): Promise<void> {
  const path = join(dir, 'download.json')
  await writeFile(path, JSON.stringify({ ...JSON.parse(await readFile(path, 'utf8')), ...changes }))
}

test('a later process goes on from what was appended', async (t) => {
  const dir = await leftBehind(t, { closed: true })
  const spool = new Spool(dir)
  assert.deepEqual(await spool.held(KEY.url), { version: KEY.version, bytes: 5 })
  assert.equal(await spool.open(KEY), 5)
  assert.equal(await text(spool), '01234')
  await spool.append(Buffer.from('56789'))
  assert.equal(await text(spool), '0123456789')
  await spool.discard()
  await assert.rejects(readFile(join(dir, 'download')), { code: 'ENOENT' })
  await assert.rejects(readFile(join(dir, 'download.json')), { code: 'ENOENT' })
  assert.equal(await new Spool(dir).held(KEY.url), undefined)
})

test('a killed process leaves all that it wrote', async (t) => {
  const dir = await leftBehind(t, { closed: false })
  assert.equal((await new Spool(dir).held(KEY.url))?.bytes, 5)
})

test('after a crash of the machine only synced bytes count', async (t) => {
  const dir = await leftBehind(t, { closed: false })
  await editNote(dir, { boot: 'an earlier one', synced: 3 })
  const spool = new Spool(dir)
  assert.equal(await spool.open(KEY), 3)
  assert.equal((await new Spool(dir).held(KEY.url))?.bytes, 3, 'the doubtful rest is gone')
  await spool.append(Buffer.from('xy'))
  assert.equal(await text(spool), '012xy')
  await spool.close()

  await editNote(dir, { boot: 'an earlier one' })
  assert.equal((await new Spool(dir).held(KEY.url))?.bytes, 5, 'close syncs')
})

const OTHERS: { name: string; key: SpoolKey }[] = [
  { name: 'URL', key: { ...KEY, url: 'http://h/b' } },
  { name: 'ETag', key: { ...KEY, version: { ...KEY.version, etag: '"b"' } } },
  { name: 'size', key: { ...KEY, version: { ...KEY.version, size: 11 } } },
  { name: 'weak ETag', key: { ...KEY, version: { ...KEY.version, etag: 'W/"a"' } } },
]
for (const { name, key } of OTHERS)
  test(`another ${name} drops what is held`, async (t) => {
    const dir = await leftBehind(t, { closed: true })
    const spool = new Spool(dir)
    assert.equal(await spool.open(key), 0)
    assert.equal(await text(spool), '')
    await spool.append(Buffer.from('new'))
    await spool.close()
    assert.equal(await readFile(join(dir, 'download'), 'utf8'), 'new')
  })

const DAMAGE: { name: string; damage: (dir: string) => Promise<void> }[] = [
  { name: 'the bytes are gone', damage: (dir) => rm(join(dir, 'download')) },
  { name: 'no bytes are left', damage: (dir) => truncate(join(dir, 'download'), 0) },
  { name: 'there are more bytes than the file has', damage: (dir) => truncate(join(dir, 'download'), 11) },
  { name: 'the note is gone', damage: (dir) => rm(join(dir, 'download.json')) },
  { name: 'the note is torn', damage: (dir) => truncate(join(dir, 'download.json'), 20) },
  { name: 'the note is empty', damage: (dir) => truncate(join(dir, 'download.json'), 0) },
  { name: 'the note is nonsense', damage: (dir) => editNote(dir, { size: -1 }) },
]
for (const { name, damage } of DAMAGE)
  test(`nothing is held when ${name}`, async (t) => {
    const dir = await leftBehind(t, { closed: true })
    await damage(dir)
    const spool = new Spool(dir)
    assert.equal(await spool.held(KEY.url), undefined)
    assert.equal(await spool.open(KEY), 0)
    await spool.append(Buffer.from('new'))
    assert.equal(await text(spool), 'new')
    await spool.close()
  })

test('one spool can be opened again, as when a download starts over', async (t) => {
  const dir = await leftBehind(t, { closed: true })
  const spool = new Spool(dir)
  assert.equal(await spool.open(KEY), 5)
  assert.equal(await spool.open(KEY), 5)
  await spool.discard()
  assert.equal(await spool.open(KEY), 0)
  await spool.close()
})

test('large downloads are synced on the way', async (t) => {
  const dir = scratchDir(t)
  const spool = new Spool(dir)
  const chunk = Buffer.alloc(8 << 20, 1)
  await spool.open({ ...KEY, version: { ...KEY.version, size: 1 << 30 } })
  for (let i = 0; i < 5; i++) await spool.append(chunk)
  const synced = async () => JSON.parse(await readFile(join(dir, 'download.json'), 'utf8')).synced
  while ((await synced()) === 0) await new Promise(setImmediate) // It runs beside the download.
  assert.ok((await synced()) >= 32 << 20)
  await spool.discard()
})
