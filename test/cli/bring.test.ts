/** Builds that come by hand: a directory, a pipe, a stick; and what one server writes for another. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { makeArchive } from '../support/archive.ts'
import { buildsOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import { quoteForShell, run } from '../support/processes.ts'
import { assertSameTree, snapshot } from '../support/snapshot.ts'
import { makeTree, randomBytes, SpecWriter } from '../support/tree.ts'
import { UPSERV, type Upserv } from '../support/upserv.ts'

async function says(upserv: Upserv, code: number, ...args: string[]): Promise<string> {
  const result = await upserv.cli(args, { timeoutMs: 60_000 })
  assert.equal(result.code, code, result.stdout + result.stderr)
  return result.stdout + result.stderr
}

/** Runs a command line of the shell, with `upserv` for the command and the data directory. */
async function shell(mirror: Mirror, script: string, data = mirror.data) {
  const command = `${quoteForShell(UPSERV)} import --data ${quoteForShell(data)}`
  return await run('sh', ['-c', script.replace('UPSERV', command)], { timeoutMs: 60_000 })
}

/** Turns a bit of the file with this content, in the pack that holds it. */
function rot(data: string, content: string | Uint8Array): void {
  for (const name of readdirSync(join(data, 'packs'))) {
    const path = join(data, 'packs', name)
    const bytes = readFileSync(path)
    const at = bytes.indexOf(content)
    if (at < 0) continue
    bytes[at]! ^= 4
    writeFileSync(path, bytes)
    return
  }
  assert.fail('no pack holds that file')
}

const CANNOT_BE_READ_AGAIN = /it cannot be fetched again: what it was imported from cannot be read again/

describe('by hand', { concurrency: 2 }, () => {
  test('a directory tree, and what tar cannot read of one', async () => {
    await using mirror = new Mirror()
    const upserv = await mirror.startUpserv()
    const tree = mirror.path('trees', 'one')
    makeTree(tree, randomTree(1, 5, 50_000))
    await says(upserv, 0, 'import', tree, '--as', '1')
    const { place } = await mirror.sync(upserv, '1')
    assertSameTree(snapshot(tree), snapshot(place))
    const absent = await says(upserv, 1, 'import', '/root/no-such-file', '--as', '2')
    assert.match(absent, /is no file that the server can read\n.*below \/root.*upserv import - --as 2 </)
    assert.match(await says(upserv, 64, 'import', tree), /required option '--as <id>'/)
    assert.match(await says(upserv, 1, 'import', tree, '--as', '1'), /is held already/)
  })

  test('a directory of which tar cannot read all: nothing of it', async (t) => {
    // Files of sysfs say that they are longer than they are.
    const tree = '/sys/module/kernel/parameters'
    if ((await run('sh', ['-c', `tar -C ${tree} -cf - . | cat`])).stderr === '')
      return t.skip(`needs ${tree}`)
    await using mirror = new Mirror()
    const upserv = await mirror.startUpserv()
    assert.match(await says(upserv, 1, 'import', tree, '--as', '1'), /^upserv: tar could not read all of/m)
    assert.deepEqual(buildsOnDisk(mirror.data), [])
    assert.deepEqual(mirror.incoming(), [])
  })

  test('standard input, with a server and without, and one that breaks off', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 50_000))
    const archive = quoteForShell(mirror.archive('1'))
    const alone = await shell(mirror, `cat ${archive} | UPSERV - --as 1`)
    assert.equal(alone.code, 0, alone.stderr)
    const upserv = await mirror.startUpserv()
    await mirror.assertServes(upserv, '1')
    const beside = await shell(mirror, `cat ${archive} | UPSERV - --as 2`)
    assert.equal(beside.code, 0, beside.stderr)
    const cut = await shell(mirror, `head -c 100000 ${archive} | UPSERV - --as 3`)
    assert.equal(cut.code, 1, cut.stdout + cut.stderr)
    const empty = await shell(mirror, 'UPSERV - --as 4 < /dev/null')
    assert.notEqual(empty.code, 0)
    assert.deepEqual(buildsOnDisk(mirror.data), ['1', '2'])
    assert.deepEqual(mirror.incoming(), [])
    rot(mirror.data, randomBytes(10_000, 50_000))
    assert.match(await says(upserv, 1, 'verify', '1', '--repair'), CANNOT_BE_READ_AGAIN)
  })

  test("a stick in xs-rsync's layout, its checksums, and one that was tampered with", async () => {
    await using mirror = new Mirror()
    const upserv = await mirror.startUpserv()
    const stick = mirror.path('stick')
    const place = join(stick, 'xs-xobuilds')
    mkdirSync(place, { recursive: true })
    const sums = (): void => {
      const names = readdirSync(place).filter((name) => name !== 'manifest.sha1')
      const line = (name: string): string =>
        `${createHash('sha1')
          .update(readFileSync(join(place, name)))
          .digest('hex')}  ${name}\n`
      writeFileSync(join(place, 'manifest.sha1'), names.map(line).join(''))
    }
    for (const id of ['802', '803']) {
      const tree = new SpecWriter()
      for (const directory of ['', 'versions', 'versions/pristine', 'versions/pristine/abc'])
        tree.directory(directory)
      tree.file('versions/pristine/abc/issue', Buffer.from(`build ${id}\n`))
      makeTree(mirror.path('trees', id), tree.spec)
      const path = join(place, `os${id}_jffs2-tree`)
      const archive = await makeArchive({ tree: mirror.path('trees', id), path, suffix: 'tar.bz2' })
      writeFileSync(
        `${archive}.md5`,
        `${createHash('md5').update(readFileSync(archive)).digest('hex')}  os.img\n`,
      )
      writeFileSync(join(place, `os${id}_jffs2.contents`), `contents of ${id}\n`)
      writeFileSync(join(place, `os${id}_jffs2.name`), `${id}\n`)
    }
    sums()
    writeFileSync(join(place, 'os803_jffs2.contents'), 'changed\n')
    assert.match(await says(upserv, 69, 'import', stick), /os803_jffs2\.contents has sha1/)
    assert.deepEqual(buildsOnDisk(mirror.data), [])
    sums()
    rmSync(join(place, 'os803_jffs2.contents'))
    assert.match(
      await says(upserv, 1, 'import', stick),
      /names os803_jffs2\.contents, which is not on the stick/,
    )
    writeFileSync(join(place, 'os803_jffs2.contents'), 'contents of 803\n')
    writeFileSync(join(place, 'os803_jffs2.name'), '803') // not as it was summed up
    assert.match(await says(upserv, 69, 'import', stick), /os803_jffs2\.name has sha1/)
    sums()
    // What other systems leave behind.
    for (const name of ['Thumbs.db', '._os802_jffs2.name', '.DS_Store', 'manifest.sha1.bak'])
      writeFileSync(join(place, name), 'nothing of ours')
    assert.match(
      await says(upserv, 0, 'import', stick),
      /build 802 is imported\nbuild 803 is imported.*checking os802_jffs2/s,
    )
    assert.match(await says(upserv, 0, 'import', stick), /nothing new is on it/)
    const synced = await mirror.sync(upserv, '802')
    assert.equal(readFileSync(join(synced.place, 'issue'), 'utf8'), 'build 802\n')
    assert.match(await says(upserv, 0, 'list'), /803 .* import +md5/)

    // Read again, it becomes the same tree: by the rules of sticks, from the same archive, from a stick that is there.
    const manifests = (): Buffer[] =>
      ['802', '803'].map((id) => readFileSync(join(mirror.data, 'builds', id, 'manifest')))
    const before = manifests()
    rot(mirror.data, 'build 802\n')
    await says(upserv, 0, 'verify', '--repair')
    const repaired = await mirror.sync(upserv, '802')
    assert.equal(readFileSync(join(repaired.place, 'issue'), 'utf8'), 'build 802\n')
    rot(mirror.data, 'build 803\n')
    for (const suffix of ['', '.md5'])
      copyFileSync(
        join(place, `os802_jffs2-tree.tar.bz2${suffix}`),
        join(place, `os803_jffs2-tree.tar.bz2${suffix}`),
      )
    assert.match(
      await says(upserv, 1, 'verify', '--repair'),
      /os803\S+ is another file now than the one that/,
    )
    renameSync(place, `${place}-away`)
    assert.match(
      await says(upserv, 1, 'verify', '--repair'),
      /cannot be fetched again: \S+xs-xobuilds cannot/,
    )
    assert.deepEqual(manifests(), before)
  })

  test('an export to where nothing can be written says so, and leaves nothing behind', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 20, 40_000))
    await mirror.startNginx()
    const upserv = await mirror.startUpserv()
    await says(upserv, 0, 'fetch', '1')
    const absent = await says(upserv, 1, 'export', '1', mirror.path('no-stick/1'))
    assert.match(absent, /^upserv: \S+\/no-stick\/1 cannot be written: ENOENT\b.*\n$/)
    // As on a stick that is full: the server hears no more of it than that nobody reads on.
    const full = mirror.path('full')
    symlinkSync('/dev/full', `${full}.part`)
    assert.match(await says(upserv, 1, 'export', '1', full), /\/full cannot be written: ENOSPC\b/)
    const command = [UPSERV, 'export', '1', '-', '--data', mirror.data].map(quoteForShell).join(' ')
    const { code, stderr } = await run('sh', ['-c', `${command} > /dev/full`], { timeoutMs: 60_000 })
    assert.equal(code, 1)
    assert.match(stderr, /standard output cannot be written: ENOSPC\b/)
    assert.ok(!existsSync(full))
    assert.equal(lstatSync(`${full}.part`, { throwIfNoEntry: false }), undefined)
    const left = readdirSync(mirror.data).filter((name) => name.startsWith('.pipe-'))
    assert.deepEqual(left, [])
  })

  test('what one server exports another imports: all of it, or what it lacks', async () => {
    await using mirror = new Mirror()
    const shared = new SpecWriter(randomTree(1, 20, 40_000))
    shared.file('changed', randomBytes(77, 40_000))
    await mirror.publish('801', randomTree(1, 20, 40_000))
    await mirror.publish('802', shared.spec, { sha256: true })
    await mirror.startNginx()
    const from = await mirror.startUpserv()
    for (const id of ['801', '802']) await mirror.assertServes(from, id)
    let to = await mirror.startUpserv({ data: mirror.path('other'), sources: [] })
    const [all, difference] = [mirror.path('801.export'), mirror.path('802.export')]
    await says(from, 0, 'export', '801', all)
    await says(from, 0, 'export', '802', '--have', '801', difference)
    assert.ok(statSync(all).size > 700_000)
    assert.ok(statSync(difference).size < 60_000, `${statSync(difference).size} bytes for one file`)
    assert.match(await says(from, 1, 'export', '801', all), /exists already/)
    assert.match(await says(from, 1, 'export', '999', mirror.path('x')), /999/)

    assert.match(
      await says(to, 69, 'import', difference),
      /lacks \d+ files.*It was exported for a server that has 801/s,
    )
    // Its digest would not be that of the file.
    const padded = mirror.path('padded.export')
    for (const behind of [Buffer.alloc(1), randomBytes(5, 300_000)]) {
      writeFileSync(padded, Buffer.concat([readFileSync(all), behind]))
      assert.match(await says(to, 69, 'import', padded), /damaged: it goes on behind its end/)
    }
    await says(to, 0, 'import', all)
    await says(to, 0, 'import', difference)
    await mirror.assertServes(to, '802')
    assert.match(await says(to, 0, 'list'), /802 .* import +sha256 \(says the export\)/)

    // Read again, it is the same file; where the other server has it from is nobody's business here.
    const [other, asked] = [mirror.path('other'), mirror.requestsFor('802').length]
    const manifest = readFileSync(join(other, 'builds/802/manifest'))
    rot(other, randomBytes(77, 40_000))
    assert.match(await says(to, 0, 'verify', '--repair'), /build 802 .* is whole/)
    await mirror.assertServes(to, '802')
    rot(other, randomBytes(77, 40_000))
    renameSync(difference, mirror.path('away'))
    assert.match(await says(to, 1, 'verify', '--repair'), /again: ENOENT\b.*802\.export/)
    copyFileSync(all, difference)
    assert.match(await says(to, 1, 'verify', '--repair'), /again: \S+802\.export is another file now/)
    assert.deepEqual(readFileSync(join(other, 'builds/802/manifest')), manifest)
    assert.equal(mirror.requestsFor('802').length, asked)
    await says(to, 0, 'import', mirror.path('away'))
    await mirror.assertServes(to, '802')

    // By a pipe, under another name; and damaged.
    const piped = await shell(mirror, `cat ${quoteForShell(all)} | UPSERV - --as again`, other)
    assert.equal(piped.code, 0, piped.stderr)
    await says(to, 0, 'remove', '802')
    await says(to, 0, 'remove', '801')
    rot(other, randomBytes(10_000, 40_000))
    assert.match(await says(to, 1, 'verify', '--repair'), CANNOT_BE_READ_AGAIN)
    // Nor is that of which an older version did not note that it was an export.
    await to.stop()
    const infoFile = join(other, 'builds/again/build.json')
    const { importedFrom, ...info } = JSON.parse(readFileSync(infoFile, 'utf8'))
    assert.equal(importedFrom, 'export')
    writeFileSync(infoFile, JSON.stringify({ ...info, importedFrom: 'file', archiveSha256: null }))
    to = await mirror.startUpserv({ data: other, sources: [] })
    assert.match(await says(to, 1, 'verify', '--repair'), CANNOT_BE_READ_AGAIN)
    await says(to, 0, 'remove', 'again')
    for (const part of [0.1, 0.5, 0.9]) {
      const bad = mirror.path('bad')
      copyFileSync(all, bad)
      truncateSync(bad, Math.floor(statSync(all).size * part))
      await says(to, 69, 'import', bad)
      const bytes = readFileSync(all)
      bytes[Math.floor(bytes.length * part)]! ^= 4
      writeFileSync(bad, bytes)
      await says(to, 69, 'import', bad)
      rmSync(bad)
    }
    assert.deepEqual(buildsOnDisk(mirror.path('other')), [])
  })
})
