import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Pacer } from '../lib/pacer.ts'
import { type ListedName, latestMatch, namesIn } from './names.ts'

const HERE = new URL('http://h/os/')

function read(text: string, most = 1_000_000): Promise<ListedName[]> {
  return namesIn(text, HERE, { most, pacer: new Pacer() })
}
const PAGES = [
  {
    what: 'nginx',
    text: '<html>\n<pre><a href="../">../</a>\n<a href="13.2.10-22/">13.2.10-22/</a> 01-Jan-2020 -\n<a href="a%20b.tar">a b.tar</a>\n',
    names: ['13.2.10-22', 'a b.tar'],
  },
  {
    what: 'Apache, with links that sort',
    text: '<table><a href="?C=N;O=D">Name</a><a href="/">Parent</a><a href="x&amp;y.tar">x</a>',
    names: ['x&y.tar'],
  },
  {
    what: 'whole URLs, and those of others',
    text: '<a href="http://h/os/1"><a href="http://other/os/2"><a href="https://h/os/3"><a href=4>',
    names: ['1', '4'],
  },
  {
    what: 'what climbs or hides a slash',
    text: '<a href="../../etc/passwd"><a href="..%2fx"><a href="%zz"><a href="a/b">',
    names: [],
  },
  {
    what: 'nginx in JSON',
    text: '[{"name":"801","type":"directory"}]',
    names: ['name', '801', 'type', 'directory'],
  },
  { what: 'text that begins like JSON', text: '[801] 802', names: ['[801]', '802'] },
  { what: 'nothing', text: '', names: [] },
]
for (const { what, text, names } of PAGES)
  test(`names: ${what}`, async () =>
    assert.deepEqual(
      (await read(text)).map(({ name }) => name),
      names,
    ))

test('names: JSON that is deeper than a stack, or longer', async () => {
  assert.equal((await read(`${'['.repeat(5000)}"1"${']'.repeat(5000)}`))[0]?.name, '1')
  assert.equal((await read(JSON.stringify(Array.from({ length: 500_000 }, String)))).length, 500_000)
})

const NGINX =
  '<pre><a href="../">../</a>\n<a href="801">801</a>    02-Nov-2007 12:00   17\n<a href="802">802</a>   -   1\n'
const DATED: { what: string; text: string; times: Record<string, string> }[] = [
  { what: 'nginx', text: NGINX, times: { 801: '2007-11-02T12:00' } },
  {
    what: 'Apache',
    text: '<tr><td><a href="801">801</a></td><td align="right">2007-11-02 12:00  </td><td>1K</td></tr><tr><td><a href="802">',
    times: { 801: '2007-11-02T12:00' },
  },
  {
    what: 'lighttpd',
    text: '<tr><td class="n"><a href="801/">801</a>/</td><td class="m">2007-Nov-02 12:00:00</td></tr>',
    times: { 801: '2007-11-02T12:00' },
  },
  {
    what: 'Caddy',
    text: '<a href="./801"><span>801</span></a><td><time datetime="2007-11-02T12:00:00Z">11/02/2007</time>',
    times: { 801: '2007-11-02T12:00' },
  },
  { what: 'a time in a name is none', text: '<a href="os-2007-11-02">os-2007-11-02</a>', times: {} },
  {
    what: 'nginx in JSON',
    text: '[{"name":"801","type":"file","mtime":"Fri, 02 Nov 2007 12:00:00 GMT"},{"name":"802","mtime":"soon"}]',
    times: { 801: '2007-11-02T12:00', file: '2007-11-02T12:00' },
  },
  {
    what: 'by id, in JSON',
    text: '{"801":{"published_at":"2007-11-02T12:00:00Z"},"802":"2007-11-03T12:00:00Z","803":{"date":1194004800}}',
    times: { 801: '2007-11-02T12:00', 802: '2007-11-03T12:00', 803: '2007-11-02T12:00' },
  },
  {
    what: 'the time of a list is not that of what it lists',
    text: '{"updated":"2026-01-01T00:00:00Z","builds":["801","802"]}',
    times: {},
  },
  {
    what: 'text',
    text: '801 2007-11-02T12:00:00Z\n802\n2007-11-02\n803 2007-11-31\n# 804 2007-11-02\n',
    times: { 801: '2007-11-02T12:00' },
  },
]
for (const { what, text, times } of DATED)
  test(`times beside names: ${what}`, async () => {
    const found = (await read(text)).filter(
      ({ name, changed }) => changed && /^(?:80\d|file|os.*)$/.test(name),
    )
    const told = found.map(({ name, changed }) => [name, changed!.toISOString().slice(0, 16)])
    assert.deepEqual(Object.fromEntries(told), times)
  })

test('names: a page of any size is read in pieces, and only as far as it may', async () => {
  const pages = [
    '<a href="x">x</a> 02-Nov-2007 12:00 1\n'.repeat(100_000),
    `<a>${'y'.repeat(4_000_000)}`,
    '801 2007-11-02\n'.repeat(300_000),
    'a '.repeat(2_000_000),
  ]
  for (const page of pages) {
    let turns = 0
    const timer = setInterval(() => turns++, 1)
    await read(page)
    clearInterval(timer)
    assert.ok(turns > 0, `nobody else had a turn: ${page.slice(0, 20)}`)
    assert.ok((await read(page, 10)).length < 20_000)
  }
})

const MATCHES = [
  { pattern: 'a-*.tar', names: ['a-9.tar', 'a-10.tar', 'b-11.tar'], name: 'a-10.tar', stars: ['10'] },
  { pattern: '*', names: ['.hidden', 'x', 'x.md5'], name: 'x', stars: ['x'] },
  { pattern: '*.md5', names: ['x', 'x.md5'], name: 'x.md5', stars: ['x'] },
  { pattern: 'a(*)+*', names: ['a(1)+2', 'aa1'], name: 'a(1)+2', stars: ['1', '2'] },
]
for (const { pattern, names, ...expected } of MATCHES)
  test(`names: ${pattern}`, () => assert.deepEqual(latestMatch(pattern, names), expected))
