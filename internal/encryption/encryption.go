// Package encryption reads how values are encrypted at rest: upstream's EncryptionConfiguration, the one the user names or the one Skiff made.
//
// The transformers, prefixes ("k8s:enc:aesgcm:v1:key1:…") and the file's format are upstream's own library, so what one wrote the other reads. A cluster
// that is told nothing encrypts Secrets with a key of its own, kept beside its other keys. Its invariant: a key file that is there is never written again.
// Package host loads it; package store puts values through what comes out.
package encryption

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/server/options/encryptionconfig"
	"k8s.io/apiserver/pkg/storage/value"

	"skiff.dev/skiff/internal/pki"
)

// ownKeys encrypts Secrets with one key, and reads what was stored before there was one.
const ownKeys = `# Skiff's own keys for secrets at rest. Keep a copy: without it the secrets in a snapshot can't be read.
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm:
      keys:
      - name: key1
        secret: %s
  - identity: {}
`

// Own makes sure that file holds keys, and gives its name back.
func Own(file string) (string, error) {
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		return file, err
	}
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("make a key for secrets at rest: %w", err)
	}
	return file, pki.WriteFile(file, fmt.Appendf(nil, ownKeys, base64.StdEncoding.EncodeToString(key)), 0o600)
}

// Config is a configuration that was read.
type Config struct {
	transformers map[schema.GroupResource]value.Transformer
	checks       []interface{ Check(*http.Request) error }
}

// Load reads file. What it starts (connections to key management services) ends with ctx.
func Load(ctx context.Context, file, serverID string) (*Config, error) {
	read, err := encryptionconfig.LoadEncryptionConfig(ctx, file, false, serverID)
	if err != nil {
		return nil, fmt.Errorf("encryption-provider-config: %s: %w", file, err)
	}
	c := &Config{transformers: read.Transformers}
	for _, h := range read.HealthChecks {
		c.checks = append(c.checks, h)
	}
	return c, nil
}

// Of is the transformer of a resource: its own, its group's, or that of all resources; nil if nothing is said of it.
func (c *Config) Of(r schema.GroupResource) value.Transformer {
	for _, name := range []schema.GroupResource{r, {Group: r.Group, Resource: "*"}, {Group: "*", Resource: "*"}} {
		if c.transformers[name] != nil {
			return encryptionconfig.StaticTransformers(c.transformers).TransformerForResource(r)
		}
	}
	return nil
}

// Remote says whether there are key management services that Check asks.
func (c *Config) Remote() bool { return len(c.checks) > 0 }

// Check asks the key management services whether they work.
func (c *Config) Check(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range c.checks {
		errs = append(errs, h.Check(r))
	}
	return errors.Join(errs...)
}
