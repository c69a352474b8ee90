/**
 * What is different about buckets: where `s3://BUCKET/KEY` is, how a request is signed, and how names below
 * a prefix are listed. All else is http.ts's: an object is a file with an ETag and ranges.
 *
 * Credentials come from the environment (AWS_ACCESS_KEY_ID and its kin) or a file as AWS's own tools have
 * it; without any, requests are not signed, for buckets that anybody may read.
 */
import { readFileSync } from 'node:fs'
import { AwsV4Signer } from 'aws4fetch'
import { ConfigError } from '../errors.ts'
import { timeIn } from './dates.ts'
import type { Authorize } from './http-client.ts'
import { htmlparser } from './late-libraries.ts'
import type { ListedName } from './names.ts'
import type { S3Options, SourceConfig } from './source.ts'
import { decodePart } from './url.ts'

interface Credentials {
  accessKeyId: string
  secretAccessKey: string
  sessionToken?: string
}

/** The same source over https, with the bucket's URL in every template. @throws ConfigError */
export function bucketAsHttp(config: SourceConfig): SourceConfig {
  const plain = (template: string | undefined): string | undefined =>
    template?.replace(/^s3:\/\/([^/]+)/i, (_, bucket: string) => bucketUrl(config, bucket))
  return {
    ...config,
    url: plain(config.url)!,
    mirrors: (config.mirrors ?? []).map((mirror) => plain(mirror)!),
    checksum: plain(config.checksum),
    signature: plain(config.signature),
    contents: plain(config.contents),
    list: config.list === undefined ? 'directories' : plain(config.list),
  }
}

function bucketUrl({ name, s3 = {} }: SourceConfig, bucket: string): string {
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) {
    throw new ConfigError(`source "${name}": "${bucket}" is no name of a bucket`)
  }
  const { endpoint = `https://s3.${s3.region ?? DEFAULT_REGION}.amazonaws.com` } = s3
  if (!/^https?:\/\/[^/]+\/?$/.test(endpoint)) {
    throw new ConfigError(`source "${name}": endpoint "${endpoint}" is no address of a server`, {
      hint: 'As in https://minio.example.org:9000.',
    })
  }
  return `${endpoint.replace(/\/$/, '')}/${bucket}`
}

const DEFAULT_REGION = 'us-east-1'

/** Signs requests, with credentials that are read anew for each: they may be renewed. */
export function signer(options: S3Options = {}): Authorize {
  return async (url, asked) => {
    const credentials = credentialsOf(options)
    if (!credentials) return {}
    const signed = await new AwsV4Signer({
      ...credentials,
      method: asked.method ?? 'GET',
      url: url.href,
      service: 's3',
      region: options.region ?? DEFAULT_REGION,
    }).sign()
    return Object.fromEntries([...signed.headers].filter(([name]) => name !== 'host'))
  }
}

function credentialsOf({ credentialsFile }: S3Options): Credentials | undefined {
  const {
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_SESSION_TOKEN: token,
  } = process.env
  if (credentialsFile !== undefined) return readCredentials(credentialsFile)
  if (!accessKeyId || !secretAccessKey) return undefined
  return { accessKeyId, secretAccessKey, ...(token ? { sessionToken: token } : {}) }
}

/** The first profile of a file such as ~/.aws/credentials. @throws ConfigError */
function readCredentials(file: string): Credentials {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new ConfigError(`${file} cannot be read: ${(cause as Error).message}`, { cause })
  }
  const value = (key: string): string | undefined =>
    new RegExp(`^\\s*${key}\\s*=\\s*(\\S+)\\s*$`, 'm').exec(text)?.[1]
  const [accessKeyId, secretAccessKey, token] = [
    value('aws_access_key_id'),
    value('aws_secret_access_key'),
    value('aws_session_token'),
  ]
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    throw new ConfigError(`${file} has no aws_access_key_id and aws_secret_access_key`)
  }
  return { accessKeyId, secretAccessKey, ...(token === undefined ? {} : { sessionToken: token }) }
}

/** The request for the names directly below a directory of a bucket, from a place in the list on. */
export function listUrl(directory: URL, continuation: string | undefined): URL {
  const [, bucket = '', prefix = ''] = /^\/([^/]+)\/(.*)$/.exec(directory.pathname) ?? []
  const url = new URL(directory)
  url.pathname = `/${bucket}`
  url.search = new URLSearchParams({
    'list-type': '2',
    delimiter: '/',
    prefix: decodePart(prefix),
    ...(continuation === undefined ? {} : { 'continuation-token': continuation }),
  }).toString()
  return url
}

/** Names and where the list goes on, of an answer to that. */
export async function parseListing(
  xml: string,
): Promise<{ names: ListedName[]; continuation: string | undefined }> {
  const { Parser } = await htmlparser()
  const names: ListedName[] = []
  let continuation: string | undefined
  const path: string[] = []
  let text = ''
  let object: { key?: string; changed?: Date | undefined } = {}
  const add = (key: string, changed?: Date): void => {
    const name = key.slice(key.lastIndexOf('/') + 1)
    if (name !== '') names.push({ name, changed })
  }
  const parser = new Parser(
    {
      onopentag(name) {
        path.push(name)
        text = ''
        if (name === 'Contents') object = {}
      },
      ontext(part) {
        text += part
      },
      onclosetag(name) {
        const parent = path.at(-2)
        if (parent === 'Contents' && name === 'Key') object.key = text
        else if (parent === 'Contents' && name === 'LastModified') object.changed = timeIn(text)
        else if (name === 'Contents') add(object.key ?? '', object.changed)
        else if (name === 'Prefix' && parent === 'CommonPrefixes') add(text.replace(/\/$/, ''))
        else if (name === 'NextContinuationToken') continuation = text
        path.pop()
        text = ''
      },
    },
    { xmlMode: true },
  )
  parser.end(xml)
  return { names, continuation }
}
