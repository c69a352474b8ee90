import assert from 'node:assert/strict'
import test from 'node:test'
import { ConfigError, SourceError } from '../errors.ts'
import { Rule } from './rule.ts'
import type { SourceConfig } from './source.ts'

const HTTP = ['http', 'https']

function config(changes: Partial<SourceConfig>): SourceConfig {
  return {
    name: 'olpc',
    builds: '^[0-9]+$',
    url: 'http://h/{build}/os{build}-tree.tar.bz2',
    checksum: undefined,
    contents: undefined,
    ...changes,
  }
}

const XO = '^(?<release>[0-9.]+)_xo(?<model>[0-9.]+)-(?<number>[0-9]+)$'
const URLS = [
  { name: 'build, twice', config: {}, id: '802', archive: 'http://h/802/os802-tree.tar.bz2' },
  {
    name: "OLPC's directories, by captures",
    config: { builds: XO, url: 'http://h/xo-{model}/os/official/{release}-{number}/' },
    id: '13.2.10_xo1.75-22',
    archive: 'http://h/xo-1.75/os/official/13.2.10-22/',
  },
  {
    name: 'checksum and contents beside it',
    config: { checksum: '{url}.md5', contents: 'https://other/{build}.contents' },
    id: '802',
    archive: 'http://h/802/os802-tree.tar.bz2',
    checksum: 'http://h/802/os802-tree.tar.bz2.md5',
    contents: 'https://other/802.contents',
  },
  {
    name: 'a capture that took no part',
    config: { builds: '^(?<n>[0-9]+)(?:-(?<tag>.*))?$', url: 'http://h/{n}{tag}.tar' },
    id: '802',
    archive: 'http://h/802.tar',
  },
  {
    name: 'captures of an alternative',
    config: { builds: '^(?:a(?<x>.)|b(?<y>.))$', url: 'http://h/{x}{y}' },
    id: 'b7',
    archive: 'http://h/7',
  },
  {
    name: 'what means something in a URL is encoded',
    config: { builds: '^.+$', url: 'http://h/{build}?id={build}' },
    id: 'a?b#c%2e&d=e f',
    archive: 'http://h/a%3Fb%23c%252e%26d%3De%20f?id=a%3Fb%23c%252e%26d%3De%20f',
  },
  {
    name: 'an encoded value is not encoded again by {url}',
    config: { builds: '^.+$', url: 'http://h/{build}', checksum: '{url}.md5' },
    id: 'a b',
    archive: 'http://h/a%20b',
    checksum: 'http://h/a%20b.md5',
  },
  {
    name: 'a value that looks like a placeholder stays what it is',
    config: { builds: '^.+$', url: 'http://h/{build}', checksum: 'http://c/{build}' },
    id: '{url}$&',
    archive: 'http://h/%7Burl%7D%24%26',
    checksum: 'http://c/%7Burl%7D%24%26',
  },
  {
    name: 'words of a map, and numbers with a width',
    config: {
      builds: '^1(?<major>[0-9])\\.(?<minor>[0-9])\\.0_(?<model>xo[0-9.]+)-(?<number>[0-9]+)$',
      maps: { dir: { xo4: 'xo-4' }, digit: { xo4: '4' } },
      url: 'http://h/{model:dir}/{major}{minor}{number:3}o{model:digit}.tar',
    },
    id: '13.2.0_xo4-13',
    archive: 'http://h/xo-4/32013o4.tar',
  },
  {
    name: 'a star in a value is no star',
    config: { builds: '^.+$', url: 'http://h/{build}' },
    id: 'a*b',
    archive: 'http://h/a%2Ab',
  },
  {
    name: 'dots within a segment',
    config: { builds: '^.+$' },
    id: 'a..b',
    archive: 'http://h/a..b/osa..b-tree.tar.bz2',
  },
]
for (const { name, config: changes, id, archive, checksum, contents } of URLS)
  test(`rule: ${name}`, () => {
    const rule = new Rule(config(changes), HTTP)
    assert.equal(rule.offers(id), true)
    const urls = rule.urlsFor(id)
    assert.equal(urls.archive.href, archive)
    assert.equal(urls.checksum?.href, checksum)
    assert.equal(urls.contents?.href, contents)
  })

const UNUSABLE = [
  { name: 'parent directory', builds: '^.+$', url: 'http://h/{build}/x', id: '..' },
  { name: 'this directory', builds: '^.+$', url: 'http://h/a/{build}', id: '.' },
  { name: 'a slash', builds: '^.+$', url: 'http://h/{build}', id: 'a/b' },
  { name: 'a backslash', builds: '^.+$', url: 'http://h/{build}', id: 'a\\b' },
  { name: 'a control character', builds: '^[^]+$', url: 'http://h/{build}', id: 'a\nb' },
  { name: 'a capture that climbs', builds: '^a(?<rest>.*)$', url: 'http://h/{rest}/x', id: 'a..' },
  { name: 'captures that climb together', builds: '^(?<a>.)-(?<b>.)$', url: 'http://h/{a}{b}/x', id: '.-.' },
  { name: 'an id that is not on offer', builds: '^[0-9]+$', url: 'http://h/{build}', id: 'x' },
]
for (const { name, builds, url, id } of UNUSABLE)
  test(`rule refuses ${name}`, () => {
    const rule = new Rule(config({ builds, url }), HTTP)
    assert.throws(() => rule.urlsFor(id), SourceError)
  })

const WRONG = [
  {
    name: 'unknown placeholder',
    config: { url: 'http://h/{bulid}' },
    message: /\{bulid\}, which is not known/,
  },
  { name: '{url} in the url itself', config: { url: 'http://h/{url}' }, message: /\{url\}/ },
  { name: 'empty placeholder', config: { url: 'http://h/{}' }, message: /\{\}/ },
  { name: 'unknown in checksum', config: { checksum: '{url}.{x}' }, message: /checksum "\{url\}\.\{x\}"/ },
  { name: 'unknown in contents', config: { contents: '{x}' }, message: /contents/ },
  { name: 'bad pattern', config: { builds: '^(' }, message: /builds is not a regular expression/ },
  { name: 'capture named build', config: { builds: '(?<build>.)' }, message: /capture "build"/ },
  { name: 'capture named url', config: { builds: '(?<url>.)' }, message: /capture "url"/ },
  { name: 'placeholder in the host', config: { url: 'http://{build}.h/x' }, message: /in the host name/ },
  { name: 'placeholder in the user', config: { url: 'http://{build}@h/x' }, message: /in the host name/ },
  { name: 'not a URL', config: { url: 'http://' }, message: /is not a URL/ },
  {
    name: 'a password',
    config: { url: 'http://me:pw@h/{x}' },
    message: /^source "[^"]*": url "http:\/\/h\/\{x\}"/,
  },
  { name: 'dots in the path', config: { url: 'http://h/a/../{build}' }, message: /"\.\." in its path/ },
  { name: 'encoded dots', config: { url: 'http://h/%2E%2e/{build}' }, message: /in its path/ },
  { name: 'unknown map', config: { url: 'http://h/{build:dir}' }, message: /the map "dir"/ },
  { name: 'a star in the host', config: { url: 'http://*/{build}' }, message: /host name/ },
  { name: 'stars that nothing fills', config: { checksum: 'http://h/*' }, message: /more stars/ },
  { name: 'bad pattern of names', config: { names: '(' }, message: /names is not a regular/ },
  { name: 'a map of no name', config: { maps: { '-': {} } }, message: /cannot be named/ },
  { name: 'foreign scheme', config: { checksum: 'file:///etc/{build}' }, message: /cannot be used here/ },
]
for (const { name, config: changes, message } of WRONG)
  test(`rule: ${name} is a ConfigError`, () => {
    assert.throws(
      () => new Rule(config(changes), HTTP),
      (error) => error instanceof ConfigError && message.test(error.message),
    )
  })

/** What must be on the way to an archive: names, and for patterns what they take and the id that it tells. */
const STEPS: {
  name: string
  url: string
  steps: (string | Record<string, string | undefined | false>)[] | undefined
}[] = [
  {
    name: 'a file',
    url: 'file:///srv/os{build}.tar.gz',
    steps: ['srv', { 'os802.tar.gz': '802', 'os802.tar.gz.md5': false, 'osx802xtar.gz': false }],
  },
  {
    name: 'a directory and a file',
    url: 'file:///srv/{build}/os{build}.tar',
    steps: ['srv', { '802': '802' }, { 'os803.tar': '803' }],
  },
  {
    name: 'a fixed name below the id',
    url: 'file:///srv/{build}/tree.tar',
    steps: ['srv', { a: 'a' }, 'tree.tar'],
  },
  {
    name: 'the id twice',
    url: 'file:///{build}-{build}',
    steps: [{ '1-1': '1', '1-2': false, '1-1-1-1': '1-1' }],
  },
  {
    name: 'other captures',
    url: 'file:///{model}/{release}-{build}',
    steps: [
      { xo4: undefined, '': undefined },
      { '13-802': '802', 'a-b-c': 'c' },
    ],
  },
  {
    name: 'characters that mean something',
    url: 'file:///a%20b/(x)+%7B/{build}[1].tar',
    steps: ['a b', '(x)+{', { '8[1].tar': '8', '81.tar': false }],
  },
  { name: 'no id in it', url: 'file:///srv/{release}.tar', steps: undefined },
]
for (const { name, url, steps } of STEPS)
  test(`rule: the way to ${name}`, () => {
    const rule = new Rule(config({ builds: '^(?<release>.*)(?<model>)$', url }), ['file'])
    const actual = rule.archiveSteps()
    assert.equal(actual?.length, steps?.length)
    for (const [i, step] of (steps ?? []).entries()) {
      const found = actual![i]!
      if (typeof step === 'string' || typeof found === 'string') {
        assert.equal(found, step)
        continue
      }
      for (const [text, id] of Object.entries(step)) {
        const match = found.exec(text)
        assert.equal(match ? match.groups?.build : false, id, text)
      }
    }
  })

test('rule: an id for which a map has no word is not on offer', () => {
  const maps = { dir: { a: 'x' } }
  const rule = new Rule(config({ builds: '^(?<model>.)$', maps, url: 'http://h/{model:dir}' }), HTTP)
  assert.deepEqual(
    ['a', 'b'].map((id) => rule.offers(id)),
    [true, false],
  )
})
