/** Certificates, made by openssl. */
import assert from 'node:assert/strict'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { run } from './processes.ts'

async function openssl(...args: string[]): Promise<void> {
  const { code, stderr } = await run('openssl', args)
  assert.equal(code, 0, stderr)
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
