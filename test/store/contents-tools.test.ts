/** The generated `contents` file, read by the tools that mtree files are for. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { generateContents } from '../../src/store/contents.ts'
import { Manifest } from '../../src/store/manifest.ts'
import { ingestAlone, type TestEntry, temporaryDirectory } from '../support/trees.ts'

const has = (program: string) => spawnSync(program, ['--version']).error === undefined
const existsAsName = (path: string) => lstatSync(path, { throwIfNoEntry: false }) !== undefined
const ODD = 'odd [*?] # = \\ \n \u00e9'
const uid = process.getuid!()
const gid = process.getgid!()
const owned = { uid, gid, mtime: 1_234_567_890, mtimeNsec: 5 }
const FILES: TestEntry[] = [
  { path: '', type: 'directory', mode: 0o755, ...owned },
  { path: 'dir', type: 'directory', mode: 0o755, ...owned },
  { path: 'dir/file', content: 'hello', mode: 0o640, ...owned },
  { path: 'dir/second name', type: 'hardlink', linkTarget: 'dir/file' },
  { path: ODD, content: 'odd', ...owned },
  { path: 'link', type: 'symlink', linkTarget: 'to nowhere', mode: 0o777, ...owned },
]

async function contentsOf(entries: TestEntry[]): Promise<string> {
  const { manifest } = await ingestAlone(entries)
  let text = ''
  for await (const chunk of generateContents(Manifest.decode(manifest))) text += chunk.toString('latin1')
  return text
}

test('contents is what its description says', async () => {
  const digest = '2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
  const file = `mode=0640 uid=${uid} gid=${gid} time=1234567890.000000005 nlink=2 tags=hardlink-1 size=5 sha256=${digest}`
  const lines = (
    await contentsOf([
      ...FILES,
      { path: 'tty', type: 'char-device', major: 4, minor: 1, mode: 0o620, mtime: -1 },
    ])
  ).split('\n')
  assert.equal(lines[0], '#mtree v2.0 upserv-contents 1')
  assert.equal(lines[1], `. type=dir mode=0755 uid=${uid} gid=${gid} time=1234567890.000000005`)
  assert.ok(lines.includes(`./dir/file type=file ${file}`))
  assert.ok(lines.includes(`./dir/second\\040name type=file ${file}`))
  assert.ok(lines.includes('./tty type=char mode=0620 uid=0 gid=0 time=-1.000000000 device=linux,4,1'))
  assert.ok(
    lines.some((line) => line.startsWith('./link type=link') && line.endsWith(' link=to\\040nowhere')),
  )
  assert.deepEqual(lines.slice(-2), ['# end of 7 entries', ''])
  assert.match(lines.join('\n'), /^[\n -~]*$/)
})

test('mtree verifies a tree against it, and notices what differs', {
  skip: !has('mtree') && 'no mtree-netbsd',
}, async () => {
  const directory = temporaryDirectory()
  try {
    const root = join(directory.path, 'root')
    mkdirSync(join(root, 'dir'), { recursive: true })
    writeFileSync(join(root, 'dir/file'), 'hello')
    linkSync(join(root, 'dir/file'), join(root, 'dir/second name'))
    writeFileSync(join(root, ODD), 'odd')
    symlinkSync('to nowhere', join(root, 'link'))
    chmodSync(root, 0o755)
    chmodSync(join(root, 'dir'), 0o755)
    chmodSync(join(root, 'dir/file'), 0o640)
    chmodSync(join(root, ODD), 0o644)
    const contents = join(directory.path, 'contents')
    // utimes has no nanoseconds that survive a double: the check is for whole seconds here.
    const entries = FILES.map((entry) => ('mtimeNsec' in entry ? { ...entry, mtimeNsec: 0 } : entry))
    writeFileSync(contents, await contentsOf(entries))
    const date = () => {
      for (const path of ['dir/file', ODD, 'link', 'dir', '']) {
        if (existsAsName(join(root, path))) lutimesSync(join(root, path), 1_234_567_890, 1_234_567_890)
      }
    }
    const verify = () => spawnSync('mtree', ['-f', contents, '-p', root], { encoding: 'utf8' })
    date()
    const good = verify()
    assert.deepEqual([good.stdout, good.stderr, good.status], ['', '', 0])
    writeFileSync(join(root, 'dir/file'), 'hellO')
    date()
    assert.match(verify().stdout, /dir\/file:.*sha256/s)
    writeFileSync(join(root, 'dir/file'), 'hello')
    unlinkSync(join(root, 'link'))
    writeFileSync(join(root, 'stray'), '')
    date()
    const bad = verify()
    assert.match(bad.stdout, /stray/)
    assert.match(bad.stdout, /missing: \.\/link/)
  } finally {
    directory.remove()
  }
})

test('bsdtar lists it', { skip: !has('bsdtar') && 'no libarchive-tools' }, async () => {
  const directory = temporaryDirectory()
  try {
    const contents = join(directory.path, 'contents')
    writeFileSync(contents, await contentsOf(FILES))
    const listed = spawnSync('bsdtar', ['-tf', contents], { encoding: 'utf8' })
    assert.equal(listed.status, 0, listed.stderr)
    assert.deepEqual(listed.stdout.trim().split('\n').length, FILES.length)
    assert.match(listed.stdout, /^\.\/dir\/second name$/m)
  } finally {
    directory.remove()
  }
})
