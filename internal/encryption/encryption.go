// Package encryption reads how values are encrypted at rest: upstream's EncryptionConfiguration, the one the user names or the one Skiff made; and again when it
// changes.
//
// The transformers, prefixes ("k8s:enc:aesgcm:v1:key1:…") and the file's format are upstream's own library, so what one wrote the other reads. A cluster
// that is told nothing encrypts Secrets with a key of its own, kept beside its other keys. Its invariants: a key file that is there is never written again, and what can be read stays readable, whatever the file becomes.
// Package host loads it; package store puts values through what comes out.
package encryption

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"sync/atomic"
	"time"

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

// Config is a configuration that was read, and may be read again.
type Config struct {
	file, serverID string
	holds          []byte // what the file held when it was first read
	now            atomic.Pointer[rules]
}

// rules are one content of the file. Read-only.
type rules struct {
	transformers map[schema.GroupResource]value.Transformer
	checks       []interface{ Check(*http.Request) error }
	number       uint32                            // counts the contents
	ruled        map[schema.GroupResource]struct{} // what this one or one before it says anything of
	end          context.CancelFunc                // ends what asks key management services
	grace        time.Duration                     // how long these may still be asked by writes under way
}

// Key is the setting that names the file.
const Key = "encryption-provider-config"

// Load reads file. What it starts (connections to key management services) ends with ctx.
func Load(ctx context.Context, file, serverID string) (*Config, error) {
	c := &Config{file: file, serverID: serverID}
	var err error
	if c.holds, err = os.ReadFile(file); err != nil {
		return nil, fmt.Errorf("%s: %w", Key, err)
	}
	r, err := c.read(ctx)
	if err != nil {
		return nil, err
	}
	c.now.Store(r)
	return c, nil
}

func (c *Config) read(ctx context.Context) (*rules, error) {
	ctx, end := context.WithCancel(ctx)
	read, err := encryptionconfig.LoadEncryptionConfig(ctx, c.file, false, c.serverID)
	if err != nil {
		end()
		return nil, fmt.Errorf("%s: %s: %w", Key, c.file, err)
	}
	r := &rules{transformers: read.Transformers, ruled: map[schema.GroupResource]struct{}{}, end: end, grace: read.KMSCloseGracePeriod}
	for _, h := range read.HealthChecks {
		r.checks = append(r.checks, h)
	}
	if before := c.now.Load(); before != nil {
		r.number = before.number + 1
		maps.Copy(r.ruled, before.ruled)
	}
	for of := range r.transformers {
		r.ruled[of] = struct{}{}
	}
	return r, nil
}

// File is the file's name, and what it held when it was first read.
func (c *Config) File() (name string, holds []byte) { return c.file, c.holds }

// Change puts the file's present content in force, if it can be used, its key management services work, and readable finds nothing that it could not decrypt.
func (c *Config) Change(ctx context.Context, readable func(ctx context.Context, of func(schema.GroupResource) (value.Transformer, uint32)) error) error {
	next, err := c.read(ctx)
	if err != nil {
		return err
	}
	if err = next.check(ctx); err == nil {
		err = readable(ctx, next.of)
	}
	if err != nil {
		next.end()
		return fmt.Errorf("%s: %s: %w", Key, c.file, err)
	}
	before := c.now.Swap(next)
	time.AfterFunc(before.grace, before.end)
	return nil
}

// Of is the transformer of a resource: its own, its group's, or that of all resources; nil if nothing is said of it. rule is the number of the file's content that
// says so; 0 as long as none has said anything.
func (c *Config) Of(r schema.GroupResource) (t value.Transformer, rule uint32) {
	return c.now.Load().of(r)
}

func (r *rules) of(res schema.GroupResource) (t value.Transformer, rule uint32) {
	for _, name := range []schema.GroupResource{res, {Group: res.Group, Resource: "*"}, {Group: "*", Resource: "*"}} {
		if _, ruled := r.ruled[name]; ruled {
			rule = r.number
		}
		if t == nil && r.transformers[name] != nil {
			t = encryptionconfig.StaticTransformers(r.transformers).TransformerForResource(res)
		}
	}
	return t, rule
}

// Remote says whether there are key management services that Check asks.
func (c *Config) Remote() bool { return len(c.now.Load().checks) > 0 }

// Check asks the key management services whether they work.
func (c *Config) Check(ctx context.Context) error { return c.now.Load().check(ctx) }

func (r *rules) check(ctx context.Context) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range r.checks {
		errs = append(errs, h.Check(q))
	}
	return errors.Join(errs...)
}
