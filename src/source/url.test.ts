import assert from 'node:assert/strict'
import test from 'node:test'
import { listUrl } from './s3.ts'
import { besideIn, fileNameOf, schemeOf, showTemplate, showUrl, withSuffix } from './url.ts'

const SHOWN = [
  { name: 'plain', url: 'http://h/os802.tar', shown: 'http://h/os802.tar' },
  { name: 'user and password', url: 'https://me:secret@h:8443/a', shown: 'https://h:8443/a' },
  { name: 'token as user', url: 'https://token@h/a', shown: 'https://h/a' },
  { name: 'query and fragment', url: 'http://h/a?sig=secret#f', shown: 'http://h/a?...' },
]
for (const { name, url, shown } of SHOWN)
  test(`showUrl: ${name}`, () => {
    const given = new URL(url)
    assert.equal(showUrl(given), shown)
    assert.equal(given.href, url, 'the URL itself is left alone')
  })

test('withSuffix puts the suffix before the query', () => {
  assert.equal(withSuffix(new URL('http://h/a.tar?x=1'), '.md5').href, 'http://h/a.tar.md5?x=1')
})

test('fileNameOf decodes where it can', () => {
  assert.equal(fileNameOf(new URL('http://h/d/os%20802.tar?x=/y')), 'os 802.tar')
  assert.equal(fileNameOf(new URL('http://h/d/100%.tar')), '100%.tar')
})

test('schemeOf', () => {
  assert.equal(schemeOf('HTTPS://h/'), 'https')
  assert.equal(schemeOf('/srv/builds'), '')
})

const BESIDE: { file: string; there: string | undefined }[] = [
  { file: 'http://h/a/os.tar.md5', there: 'http://me:pw@m/b/other.tar.md5' },
  { file: 'http://h/a/SHA256SUMS', there: 'http://me:pw@m/b/SHA256SUMS' },
  { file: 'http://h/a/c/sums', there: 'http://me:pw@m/b/c/sums' },
  { file: 'http://h/sums', there: undefined },
  { file: 'http://other/a/os.tar.md5', there: undefined },
  { file: 'https://h/a/os.tar.md5', there: undefined },
]
for (const { file, there } of BESIDE)
  test(`besideIn: ${file}`, () => {
    const [place, archive] = [new URL('http://me:pw@m/b/other.tar'), new URL('http://u:x@h/a/os.tar')]
    assert.equal(besideIn(place, archive, new URL(file))?.href, there)
  })

test('showTemplate leaves out who we are', () => {
  assert.equal(showTemplate('https://me:p@ss@h/{build}'), 'https://h/{build}')
  assert.equal(showTemplate('{url}.md5'), '{url}.md5')
  assert.equal(showTemplate('http://h/a@b'), 'http://h/a@b')
})

test('a % that stands for itself stays', () => {
  assert.equal(fileNameOf(new URL('http://h/a/50%off.tar')), '50%off.tar')
  const list = listUrl(new URL('http://h/bucket/50%off/a b/'), undefined)
  assert.equal(list.searchParams.get('prefix'), '50%off/a b/')
})
