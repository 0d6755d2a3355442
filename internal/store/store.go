// Package store keeps the cluster's state: etcd on disk, one immutable copy in memory, one event log a resource between them.
//
// One etcd watch over Prefix feeds memory, so memory is always etcd as it was at one revision, the same for every resource. A write is one
// etcd transaction; it returns when memory has it too, and the object it was given becomes the one that memory holds, so nothing this process writes is
// decoded again and every read after a write sees it. Objects and entries are immutable once they are in memory: everybody shares them.
//
// Keys on disk are upstream's: Prefix + the resource's Key + "/" + namespace/name, and so are values. Package registry is the only writer; package
// client reads collections too.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/btree"
	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/etcd"
)

// Config of a store. Client is either the embedded member's in-process client or one for external endpoints.
type Config struct {
	Client *etcd.Client
	Prefix string // "/registry/"
	// Sole says that nobody else writes to this etcd: then memory is current as soon as this process's own writes have returned.
	Sole bool
	// EventBytes bounds the memory of one resource's event log; 0 means a good default.
	EventBytes int
	// Life is how long values of transient resources stay after they were last written; 0: for ever.
	Life time.Duration
	// AtRest encrypts values; nil: none are.
	AtRest Transform
	// Observe, if set, hears how long each write to etcd took.
	Observe func(operation string, of schema.GroupResource, took time.Duration)
	// DetectMutation makes the store hash every shared object and fail loudly (Run returns an error naming the key) when somebody
	// changed one. Tests turn it on.
	DetectMutation bool
	Log            *slog.Logger
}

const defaultEventBytes = 2 << 20

// Store is the memory of one cluster.
type Store struct {
	cfg   Config
	ready chan struct{}
	quiet time.Duration // bookmarkEvery, but in tests

	mu          sync.RWMutex // guards everything below, and every collection's contents
	revision    int64
	past        past
	collections map[string]*Collection  // by the resource's Key
	unclaimed   *btree.BTreeG[rawValue] // what no open collection holds, by full key
	pending     map[string]*pendingWrite
	waiters     []*waiter
	corrupt     map[string]unreadable // by full key
	unhealthy   error                 // why the watch is down; nil while it runs

	reads sharedRead
	locks keyLocks
	life  lifetime
	pool  api.Pool // parts that objects share
}

type rawValue struct {
	key      string
	value    []byte
	revision int64
}

// waiter waits for memory to reach a revision.
type waiter struct {
	revision int64
	reached  chan struct{}
}

// New returns a store that holds nothing until Run.
func New(cfg Config) *Store {
	if cfg.EventBytes == 0 {
		cfg.EventBytes = defaultEventBytes
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{
		cfg:         cfg,
		ready:       make(chan struct{}),
		quiet:       bookmarkEvery,
		collections: map[string]*Collection{},
		unclaimed:   btree.NewG(treeDegree, func(a, b rawValue) bool { return a.key < b.key }),
		pending:     map[string]*pendingWrite{},
		corrupt:     map[string]unreadable{},
		life:        lifetime{turn: make(chan struct{}, 1)},
	}
}

// Run loads everything below Prefix into memory, then follows etcd's one watch until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	for first := true; ; first = false {
		if err := s.load(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if first {
				return fmt.Errorf("load the cluster's state from etcd: %w", err)
			}
			s.setHealth(fmt.Errorf("reload from etcd: %w", err))
			s.cfg.Log.Error("etcd can't be read; trying again", "err", err)
			if !sleep(ctx, time.Second) {
				return nil
			}
			continue
		}
		s.setHealth(nil)
		if first {
			close(s.ready)
		}
		err := s.follow(ctx)
		var changed *mutationError
		switch {
		case errors.As(err, &changed):
			return err
		case ctx.Err() != nil:
			return s.checkMutations()
		}
		s.setHealth(fmt.Errorf("the watch on etcd ended: %w", err))
		s.cfg.Log.Warn("the watch on etcd ended; reading everything again", "err", err)
		if !sleep(ctx, 100*time.Millisecond) {
			return nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Ready is closed once memory holds everything etcd had at start.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Revision is the newest revision memory has reached.
func (s *Store) Revision() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.revision
}

// Healthy says why the store can't be trusted to be current, if so. Values that can't be decoded are named, but do not make it unhealthy:
// everything else is served.
func (s *Store) Healthy(ctx context.Context) error {
	s.mu.RLock()
	err := s.unhealthy
	s.mu.RUnlock()
	if err != nil || s.cfg.Sole {
		return err
	}
	// Somebody else's etcd may be gone without the watch knowing: it waits and tries again.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := s.cfg.Client.Get(ctx, s.cfg.Prefix, clientv3.WithCountOnly()); err != nil {
		return fmt.Errorf("etcd does not answer: %w", err)
	}
	return nil
}

// Corrupt lists the keys whose values couldn't be decoded, with the reasons.
func (s *Store) Corrupt() map[string]error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]error, len(s.corrupt))
	for k, u := range s.corrupt {
		out[k] = u.err
	}
	return out
}

func (s *Store) setHealth(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unhealthy = err
}

// Wait returns once memory has reached a revision that is current as of the call, and returns it. All readers who wait share
// one linearizable read.
func (s *Store) Wait(ctx context.Context) (int64, error) {
	if s.cfg.Sole {
		return s.Revision(), nil
	}
	rev, err := s.reads.do(ctx, s.currentRevision)
	if err != nil {
		return 0, asStatus(err, "read")
	}
	return rev, s.waitFor(ctx, rev)
}

func (s *Store) currentRevision(ctx context.Context) (int64, error) {
	resp, err := s.cfg.Client.Get(ctx, s.cfg.Prefix, clientv3.WithCountOnly())
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

// waitPatience is how long a read waits for a revision before it tells the client to come again.
const waitPatience = 3 * time.Second

// waitFor returns once memory has reached rev.
func (s *Store) waitFor(ctx context.Context, rev int64) error {
	s.mu.Lock()
	if s.revision >= rev {
		s.mu.Unlock()
		return nil
	}
	w := &waiter{rev, make(chan struct{})}
	s.waiters = append(s.waiters, w)
	s.mu.Unlock()
	if !s.cfg.Sole {
		// Revisions of keys outside Prefix bring no event; etcd tells of them when asked.
		_ = s.cfg.Client.RequestProgress(clientv3.WithRequireLeader(ctx)) // as the watch: by this etcd finds its stream
	}
	patience := time.NewTimer(waitPatience)
	defer patience.Stop()
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		s.forget(w)
		return apierrors.NewTimeoutError(ctx.Err().Error(), 1)
	case <-patience.C:
		s.forget(w)
		return tooLarge(rev, s.Revision())
	}
}

func (s *Store) forget(w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.waiters {
		if other == w {
			s.waiters = append(s.waiters[:i], s.waiters[i+1:]...)
			return
		}
	}
}

// advance moves memory's revision on and wakes who waited for it. Called with mu held.
func (s *Store) advance(rev int64) {
	if rev <= s.revision {
		return
	}
	s.revision = rev
	s.past.note(rev, time.Now())
	rest := s.waiters[:0]
	for _, w := range s.waiters {
		if w.revision <= rev {
			close(w.reached)
		} else {
			rest = append(rest, w)
		}
	}
	clear(s.waiters[len(rest):])
	s.waiters = rest
}

// Collection opens the collection of a resource row. Opened twice, it is the same one. It may be opened before or after Run starts.
func (s *Store) Collection(r *api.Resource) *Collection {
	if c := s.Opened(r); c != nil { // every request asks; they do not wait for one another
		return c
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.collections[r.Key]; c != nil {
		return c
	}
	c := newCollection(s, r)
	s.collections[r.Key] = c
	raws := s.below(c.prefix)
	for _, raw := range raws {
		s.unclaimed.Delete(raw)
	}
	s.fill(c, raws)
	return c
}

// below lists the unclaimed values with a prefix. Called with mu held.
func (s *Store) below(prefix string) (out []rawValue) {
	s.unclaimed.AscendGreaterOrEqual(rawValue{key: prefix}, func(v rawValue) bool {
		if !strings.HasPrefix(v.key, prefix) {
			return false
		}
		out = append(out, v)
		return true
	})
	return out
}

// Opened is the collection of a row if it is open: those of custom resources come and go, and only who makes their rows opens them.
func (s *Store) Opened(r *api.Resource) *Collection {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.collections[r.Key]
}

// Renew puts a row in the place of the one that its collection has. What is stored stays; watches end, but for those of the process's own
// followers, for what they showed may look different now.
func (s *Store) Renew(r *api.Resource) *Collection {
	c := s.Collection(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Resource() != r {
		c.res.Store(r)
		close(c.over)
		c.over = make(chan struct{})
	}
	return c
}

// Close forgets a collection. Followers get what they have not read yet, then every watch ends. What is still stored is kept as it is, for
// whoever opens the collection again.
func (s *Store) Close(r *api.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.collections[r.Key]
	if c == nil {
		return
	}
	delete(s.collections, r.Key)
	c.closed = true
	close(c.over)
	c.tree.Ascend(func(e *Entry) bool {
		full := c.prefix + e.key
		if value, err := encode(e.res, e.Object()); err == nil {
			if value, _, err = c.seal(context.Background(), full, value); err == nil {
				s.unclaimed.ReplaceOrInsert(rawValue{full, value, e.rev})
			}
		}
		return true
	})
}

// collectionOf finds the open collection of a full key and the key below it. Called with mu held.
func (s *Store) collectionOf(key string) (*Collection, string) {
	rest := key[len(s.cfg.Prefix):]
	for i, slashes := 0, 0; i < len(rest) && slashes < 2; i++ {
		if rest[i] != '/' {
			continue
		}
		slashes++
		if c := s.collections[rest[:i]]; c != nil {
			return c, rest[i+1:]
		}
	}
	return nil, ""
}
