import assert from 'node:assert/strict'
import { test } from 'node:test'
import { latestMatch, namesIn } from './names.ts'

const HERE = new URL('http://h/os/')
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
  test(`names: ${what}`, () => assert.deepEqual(namesIn(text, HERE), names))

test('names: JSON that is deeper than a stack', () => {
  assert.deepEqual(namesIn(`${'['.repeat(5000)}"1"${']'.repeat(5000)}`, HERE), ['1'])
})

const MATCHES = [
  { pattern: 'a-*.tar', names: ['a-9.tar', 'a-10.tar', 'b-11.tar'], name: 'a-10.tar', stars: ['10'] },
  { pattern: '*', names: ['.hidden', 'x', 'x.md5'], name: 'x', stars: ['x'] },
  { pattern: '*.md5', names: ['x', 'x.md5'], name: 'x.md5', stars: ['x'] },
  { pattern: 'a(*)+*', names: ['a(1)+2', 'aa1'], name: 'a(1)+2', stars: ['1', '2'] },
]
for (const { pattern, names, ...expected } of MATCHES)
  test(`names: ${pattern}`, () => assert.deepEqual(latestMatch(pattern, names), expected))
