/** The kinds of source there are, by the scheme of their URL. */
import { ConfigError } from '../errors.ts'
import { BundleSource } from './bundle.ts'
import { DirectorySource } from './directory.ts'
import { HttpSource } from './http.ts'
import { checkKeys } from './kinds.ts'
import { OciSource } from './oci.ts'
import { ParentSource } from './parent.ts'
import { PipeSource } from './pipe.ts'
import { bucketAsHttp } from './s3.ts'
import type { Source, SourceConfig, SourceDeps } from './source.ts'
import { schemeOf, showTemplate } from './url.ts'

export type AnySource = Source | ParentSource | BundleSource

/** Makes the source that a configuration describes, by the scheme of its URL. Throws ConfigError. */
export function createSource(config: SourceConfig, deps: SourceDeps = {}): AnySource {
  checkKeys(config)
  const scheme = schemeOf(config.url)
  switch (scheme) {
    case 'http':
    case 'https':
      return new HttpSource(config, deps)
    case 's3':
      return new HttpSource(bucketAsHttp(config), deps, true)
    case 'file':
      return new DirectorySource(config, deps)
    case 'pipe':
      return new PipeSource(config)
    case 'bundle':
      return new BundleSource(config)
    case 'oci':
    case 'oci+http':
      return new OciSource(config, deps)
    case 'upserv':
    case 'upservs':
      return new ParentSource(config, deps)
    default:
      throw new ConfigError(
        `source "${config.name}": url "${showTemplate(config.url)}" ${scheme ? `has the scheme "${scheme}"` : 'has no scheme'}`,
        {
          hint: 'A source is an http://, https:// or file:// URL, oci:// for an image, or upserv:// for another server.',
        },
      )
  }
}

/**
 * The directory in which all of a source lies: a URL of file:, http: or https:, which anybody answers who is
 * there. @throws ConfigError, TypeError when it is no URL.
 */
export function whereabouts(config: SourceConfig): URL {
  const { url } = schemeOf(config.url) === 's3' ? bucketAsHttp(config) : config
  const fixed = url.replace(/[{*].*$/s, '')
  // A template whose host is a placeholder has no place in common.
  const known = /^[^:]+:\/\/(?:[^/]+(?:\/|$)|\/)/.test(fixed) ? fixed : url.replaceAll(/[{}*]/g, '')
  const plain = known.replace(/^(?:oci\+http|upserv):/i, 'http:')
  return new URL('.', plain.replace(/^(?:oci|upservs):/i, 'https:'))
}
