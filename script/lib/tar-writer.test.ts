/** What TarWriter makes, GNU tar reads as it was meant. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { TarWriter } from './tar-writer.ts'

const LONG = `long/${'x'.repeat(120)}`

function list(tar: Buffer): string[] {
  const options = { input: tar, env: { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' } }
  return execFileSync('tar', ['-tvf', '-'], options).toString().trimEnd().split('\n')
}

function sample(): TarWriter {
  const tar = new TarWriter(1_000_000_000)
  tar.directory('')
  tar.directory('long', { mode: 0o1777 })
  tar.file(LONG, 'content', { mode: 0o4755, uid: 1000, gid: 1001 })
  tar.hardlink('again', LONG)
  tar.symlink('link', '../elsewhere', { userName: 'child', groupName: 'disk' })
  tar.charDevice('null', 1, 300, { mode: 0o666, mtime: 5 })
  tar.blockDevice('disk', 259, 7)
  tar.fifo('fifo')
  return tar
}

test('every kind of entry', () => {
  const fields = list(sample().finish()).map((line) => line.replace(/ +/g, ' '))
  assert.deepEqual(fields, [
    'drwxr-xr-x 0/0 0 2001-09-09 01:46 ./',
    'drwxrwxrwt 0/0 0 2001-09-09 01:46 ./long/',
    `-rwsr-xr-x 1000/1001 7 2001-09-09 01:46 ./${LONG}`,
    `hrw-r--r-- 0/0 0 2001-09-09 01:46 ./again link to ./${LONG}`,
    'lrwxrwxrwx child/disk 0 2001-09-09 01:46 ./link -> ../elsewhere',
    'crw-rw-rw- 0/0 1,300 1970-01-01 00:00 ./null',
    'brw-r--r-- 0/0 259,7 2001-09-09 01:46 ./disk',
    'prw-r--r-- 0/0 0 2001-09-09 01:46 ./fifo',
  ])
})

test('a merged archive brings what is not there yet, long names included', () => {
  const tar = new TarWriter(0)
  tar.directory('long', { mode: 0o700 })
  tar.merge(sample().finish())
  tar.merge(sample().finish())
  const lines = list(tar.finish())
  assert.equal(lines.length, tar.entries)
  assert.equal(lines.length, 8)
  assert.match(lines[0]!, /^drwx------ .* \.\/long\/$/)
  assert.equal(lines.filter((line) => line.endsWith(`./${LONG}`)).length, 2)
})

test('an archive of GNU tar is merged whole', () => {
  const dir = mkdtempSync(join(tmpdir(), 'upserv-tar-'))
  try {
    execFileSync('sh', ['-ec', `mkdir -p a/b; echo 1 > a/b/c; ln a/b/c a/d; echo 2 > ${'n'.repeat(150)}`], {
      cwd: dir,
    })
    const made = execFileSync('tar', ['--format=gnu', '--sort=name', '-cf', '-', '.'], { cwd: dir })
    const tar = new TarWriter(0)
    tar.merge(made)
    assert.deepEqual(list(tar.finish()), list(made))
  } finally {
    rmSync(dir, { recursive: true })
  }
})

test('no path twice', () => {
  const tar = sample()
  assert.throws(() => tar.file('link', ''), /link: twice/)
})
