package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/btree"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ListOptions of a list. Limit 0 = all. Continue is Page.Continue of the page before; ExactRevision lists what there was at that revision.
type ListOptions struct {
	Predicate
	Read
	ExactRevision int64
	Limit         int64
	Continue      string
}

// Page is one page of a list, in key order. Entries are shared: lists of the same may be the same slice.
type Page struct {
	Entries   []*Entry
	Revision  int64
	Continue  string
	Remaining *int64 // when known: no selector
}

// maxSnapshots is how many trees a collection keeps for the next pages of lists. Others are made again from the log, as far as it reaches.
const maxSnapshots = 16

// token says where a list goes on. Revision -1: at whatever is newest then.
type token struct {
	Version  string `json:"v"`
	Revision int64  `json:"rv"`
	From     string `json:"start"`
}

func (t token) String() string {
	raw, _ := json.Marshal(t)
	return base64.RawURLEncoding.EncodeToString(raw)
}

func parseToken(s string) (token, error) {
	var t token
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	if err != nil || t.Version != "meta.k8s.io/v1" || t.Revision < -1 || strings.Contains(t.From, "..") {
		return t, apierrors.NewBadRequest("continue: the token is not one this server gave; leave it out to list from the start")
	}
	return t, nil
}

// List returns a page. Its errors: Expired (410, with a token that goes on inconsistently where one expired), Timeout when MinRevision isn't reached in time,
// BadRequest for a malformed token.
func (c *Collection) List(ctx context.Context, o ListOptions) (*Page, error) {
	exact, from := o.ExactRevision, ""
	if o.Continue != "" {
		t, err := parseToken(o.Continue)
		if err != nil {
			return nil, err
		}
		if from = t.From; t.Revision > 0 {
			exact = t.Revision
		} else {
			o.Consistent = true
		}
	}
	if exact > 0 {
		o.Read = Read{MinRevision: exact}
	}
	if err := c.s.settle(ctx, o.Read); err != nil {
		return nil, err
	}
	if o.Limit > 0 || exact > 0 {
		// A page may leave a snapshot behind, and the past is made from a clone; both change the collection.
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
	} else {
		c.s.mu.RLock()
		defer c.s.mu.RUnlock()
	}
	tree, rev := c.tree, c.s.revision
	if exact > 0 && exact != rev {
		if tree = c.treeAt(exact); tree == nil {
			return nil, expired(exact, rev, o.Continue != "", from)
		}
		rev = exact
	}
	return c.page(tree, &o, from, rev), nil
}

// treeAt is the tree as it was at a revision: the present one if nothing has changed since, one that a page has left behind, or the present one without what
// the log says has happened since. It is nil if the revision is too old. Called with the lock held for writing.
func (c *Collection) treeAt(rev int64) *btree.BTreeG[*Entry] {
	if rev < c.s.past.horizon(time.Now()) {
		return nil
	}
	if i := slices.IndexFunc(c.snapshots, func(s snapshot) bool { return s.revision == rev }); i >= 0 {
		return c.snapshots[i].tree
	}
	switch {
	case rev < c.log.oldest:
		return nil
	case c.log.last <= rev:
		return c.tree
	}
	tree := c.tree.Clone()
	for i := len(c.log.events) - 1; i >= 0 && c.log.events[i].Revision > rev; i-- {
		if e := &c.log.events[i]; e.Prev != nil {
			tree.ReplaceOrInsert(e.Prev)
		} else {
			tree.Delete(e.Entry)
		}
	}
	return tree
}

func (c *Collection) page(tree *btree.BTreeG[*Entry], o *ListOptions, from string, rev int64) *Page {
	p := &Page{Revision: rev}
	whole := tree == c.tree && from == "" && o.Limit == 0 && !o.selects() && o.Name == ""
	if whole {
		if l := c.listed.Load(); l != nil && l.namespace == o.Namespace {
			p.Entries = l.entries
			return p
		}
		if o.Namespace == "" { // one of many namespaces has little of it
			p.Entries = make([]*Entry, 0, tree.Len())
		}
	}
	more := false
	c.each(tree, &o.Predicate, from, func(e *Entry) bool {
		if o.Limit > 0 && int64(len(p.Entries)) == o.Limit {
			more = true
			return false
		}
		p.Entries = append(p.Entries, e)
		return true
	})
	if whole && len(p.Entries) >= longList {
		p.Entries = slices.Clip(p.Entries)
		c.listed.Store(&listed{o.Namespace, p.Entries})
	}
	if !more {
		return p
	}
	next := p.Entries[len(p.Entries)-1].key + "\x00"
	p.Continue = token{"meta.k8s.io/v1", rev, next}.String()
	if !o.selects() {
		n := int64(0)
		c.each(tree, &o.Predicate, next, func(*Entry) bool { n++; return true })
		p.Remaining = &n
	}
	c.keepSnapshot(rev, tree)
	return p
}

// listed is a namespace's entries (or all) as they were listed last, until one changes: who lists again need not walk through the tree.
type listed struct {
	namespace string
	entries   []*Entry
}

// longList is how long a list is before it is kept.
const longList = 500

// keepSnapshot remembers the tree of a revision for the pages to come. Called with the lock held for writing.
func (c *Collection) keepSnapshot(rev int64, tree *btree.BTreeG[*Entry]) {
	horizon := c.s.past.horizon(time.Now())
	c.snapshots = slices.DeleteFunc(c.snapshots, func(s snapshot) bool { return s.revision < horizon })
	if slices.ContainsFunc(c.snapshots, func(s snapshot) bool { return s.revision == rev }) {
		return
	}
	if len(c.snapshots) == maxSnapshots {
		c.snapshots = slices.Delete(c.snapshots, 0, 1)
	}
	if tree == c.tree {
		tree = tree.Clone()
	}
	c.snapshots = append(c.snapshots, snapshot{rev, tree})
}

// expired is the 410. One for a continue token carries a token to go on with from the same key, at the newest revision.
func expired(rev, now int64, continued bool, from string) error {
	if !continued {
		return apierrors.NewResourceExpired(fmt.Sprintf("The resourceVersion for the provided list is too old: %d (now %d)", rev, now))
	}
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. " +
		"You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. " +
		"Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk " +
		"was returned and now may show up in the list.")
	err.ErrStatus.ListMeta = metav1.ListMeta{Continue: token{"meta.k8s.io/v1", -1, from}.String()}
	return err
}

// tooLarge is upstream's answer to a revision that is not reached yet.
func tooLarge(rev, now int64) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", rev, now), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

// eachIndexed walks an index's entries in key order. Called with the lock held for reading.
func (c *Collection) eachIndexed(p *Predicate, from string, f func(*Entry) bool) {
	found := c.indexes[p.Index][p.Value]
	entries := make([]*Entry, 0, len(found))
	for _, e := range found {
		if e.key >= from && p.match(c, e) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b *Entry) int { return strings.Compare(a.key, b.key) })
	for _, e := range entries {
		if !f(e) {
			return
		}
	}
}
