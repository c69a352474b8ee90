import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ascii } from '../lib/bytes.ts'
import { parseSkipList } from './skip-compress.ts'

// biome-ignore format: a table
const ROWS: readonly { list: string | undefined; skips: string[]; compresses: string[] }[] = [
  { list: undefined, skips: [], compresses: ['a.gz', 'a', ''] },
  { list: '', skips: [], compresses: ['a.gz', 'a.', ''] },
  { list: 'gz', skips: ['a.gz', 'dir/a.tar.gz', '.gz', 'A.GZ'], compresses: ['gz', 'agz', 'a.gzz', 'a.gz/b', 'a.xgz'] },
  { list: 'GZ/bz2', skips: ['a.gz', 'b.bz2'], compresses: ['c.bz', 'd.xz'] },
  { list: 'tar.gz', skips: ['a.tar.gz'], compresses: ['a.gz'] },
  { list: 'mp[34]', skips: ['a.mp3', 'a.mp4', 'a.MP4'], compresses: ['a.mp5', 'a.mp[', 'a.mp', 'a.mp34'] },
  { list: '[ab][cd]', skips: ['x.ac', 'x.bd'], compresses: ['x.ab', 'x.cd'] },
  { list: 'a*/b?', skips: ['x.a*', 'x.b?'], compresses: ['x.ab', 'x.bc'] },
  { list: 'a[b', skips: ['x.a[b'], compresses: ['x.ab'] },
  { list: 'a[]', skips: [], compresses: ['x.a', 'x.a[', 'x.a]'] },
  { list: '//', skips: [], compresses: ['a', '.', 'a.'] },
]
for (const { list, skips, compresses } of ROWS) {
  test(`--skip-compress=${list ?? '(none)'}`, () => {
    const skipsName = parseSkipList(list === undefined ? undefined : ascii(list))
    for (const name of skips) assert.ok(skipsName(ascii(name)), `${name} is skipped`)
    for (const name of compresses) assert.ok(!skipsName(ascii(name)), `${name} is compressed`)
  })
}

test('--skip-compress: a list of a megabyte takes no time, neither at first nor for each file', () => {
  const lists = ['x'.repeat(1 << 20), '[ab]/'.repeat(200_000), '['.repeat(1 << 20), `${'['.repeat(1 << 20)}]`]
  lists.push(`[${'x'.repeat(4000)}]/`.repeat(256))
  for (const list of lists) {
    const before = process.cpuUsage()
    const skips = parseSkipList(ascii(list))
    for (let i = 0; i < 1000; i++) assert.ok(!skips(ascii('file.c')))
    const { user } = process.cpuUsage(before)
    // Some 50 ms; where each is looked at from each, ten seconds and more.
    assert.ok(user < 2_000_000, `${list.slice(0, 10)}...: ${user / 1000} ms of the processor`)
  }
})
