/** Authorities and certificates as openssl makes them, for servers and clients under test. */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from './processes.ts'

/** Paths of files in PEM. */
export interface Pair {
  cert: string
  key: string
}

export interface CertificateOptions {
  cn: string
  /** As openssl has them: `DNS:localhost,IP:127.0.0.1`. */
  san?: string
  expired?: boolean
  /** What it may be used for; both unless told. */
  use?: 'serverAuth' | 'clientAuth'
}

async function openssl(...args: string[]): Promise<void> {
  const { code, stderr } = await run('openssl', args)
  assert.equal(code, 0, stderr)
}

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

export class Authority {
  /** Its own certificate. */
  readonly cert: string
  readonly #directory: string
  readonly #key: string
  #issued = 0

  private constructor(directory: string) {
    this.#directory = directory
    this.cert = join(directory, 'ca.pem')
    this.#key = join(directory, 'ca.key')
  }

  /** @param directory is made, for it alone. */
  static async make(directory: string, name = 'test authority'): Promise<Authority> {
    mkdirSync(directory)
    const authority = new Authority(directory)
    const extensions = [
      '-addext',
      'basicConstraints=critical,CA:TRUE',
      '-addext',
      'keyUsage=keyCertSign,cRLSign',
    ]
    await openssl(
      ...['req', '-x509', ...NEW_KEY, '-keyout', authority.#key, '-out', authority.cert],
      ...['-days', '3', '-subj', `/CN=${name}`, ...extensions],
    )
    return authority
  }

  async issue({ cn, san, expired = false, use }: CertificateOptions): Promise<Pair> {
    const path = (name: string): string => join(this.#directory, name)
    const number = ++this.#issued
    const [cert, key, request, config] = ['pem', 'key', 'csr', 'cnf'].map((end) =>
      path(`${number}.${end}`),
    ) as [string, string, string, string]
    writeFileSync(
      config,
      [
        ...['[ca]', 'default_ca = it', '[it]', `new_certs_dir = ${this.#directory}`, 'default_md = sha256'],
        ...[`database = ${path(`${number}.index`)}`, `serial = ${path(`${number}.serial`)}`, 'policy = any'],
        ...[
          'x509_extensions = leaf',
          '[any]',
          'commonName = supplied',
          '[leaf]',
          'basicConstraints = CA:FALSE',
        ],
        ...(san === undefined ? [] : [`subjectAltName = ${san}`]),
        ...(use === undefined ? [] : [`extendedKeyUsage = ${use}`]),
        '',
      ].join('\n'),
    )
    writeFileSync(path(`${number}.index`), '')
    writeFileSync(path(`${number}.serial`), `${String(number).padStart(4, '0')}\n`)
    await openssl('req', '-new', ...NEW_KEY, '-keyout', key, '-subj', `/CN=${cn}`, '-out', request)
    const dates = expired ? ['-startdate', '20100101000000Z', '-enddate', '20110101000000Z'] : ['-days', '2']
    await openssl(
      ...['ca', '-batch', '-notext', '-config', config, '-cert', this.cert, '-keyfile', this.#key],
      ...['-in', request, '-out', cert, ...dates],
    )
    return { cert, key }
  }
}
/** In PEM. It vouches for itself, and is good for 127.0.0.1: for two days, or it has run out long ago. */
export async function makeCertificate(
  directory: string,
  expired = false,
): Promise<{ key: string; cert: string }> {
  const [key, cert, request] = ['key.pem', 'cert.pem', 'request.pem'].map((name) =>
    join(directory, name),
  ) as [string, string, string]
  const config = join(directory, 'openssl.cnf')
  await writeFile(
    config,
    `[ca]\ndefault_ca = it\n[it]\nnew_certs_dir = ${directory}\ndatabase = ${join(directory, 'index.txt')}\nserial = ${join(directory, 'serial')}\n` +
      'default_md = sha256\npolicy = any\nx509_extensions = server\n[any]\ncommonName = supplied\n' +
      '[server]\nsubjectAltName = IP:127.0.0.1\nbasicConstraints = CA:TRUE\n[req]\ndistinguished_name = name\n[name]\n',
  )
  await writeFile(join(directory, 'index.txt'), '')
  await writeFile(join(directory, 'serial'), '01\n')
  const pair = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', key]
  await openssl('req', '-new', '-config', config, ...pair, '-subj', '/CN=upserv test', '-out', request)
  const dates = expired ? ['-startdate', '20100101000000Z', '-enddate', '20110101000000Z'] : ['-days', '2']
  await openssl(
    'ca',
    '-batch',
    '-selfsign',
    '-notext',
    '-config',
    config,
    '-keyfile',
    key,
    '-in',
    request,
    '-out',
    cert,
    ...dates,
  )
  return { key: await readFile(key, 'utf8'), cert: await readFile(cert, 'utf8') }
}
