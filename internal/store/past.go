package store

import "time"

// Revisions can be listed at for as long as upstream's etcd keeps them, which is compacted every five minutes: a continue token that is older is answered by 410.
const (
	revisionLife  = 5 * time.Minute
	revisionMarks = time.Minute // how far apart the revisions are whose time is known
)

// past is when memory reached some revisions, the oldest first.
type past []mark

type mark struct {
	revision int64
	at       time.Time
}

// note says that a revision has been reached.
func (p *past) note(rev int64, now time.Time) {
	if n := len(*p); n > 0 && now.Sub((*p)[n-1].at) < revisionMarks {
		return
	}
	*p = append(*p, mark{rev, now})
	for len(*p) > 1 && now.Sub((*p)[1].at) >= revisionLife {
		*p = (*p)[1:]
	}
}

// horizon is the oldest revision that can be listed at: the newest of which it is known that it is a life old. What was current since then is not older.
func (p past) horizon(now time.Time) (rev int64) {
	for _, m := range p {
		if now.Sub(m.at) < revisionLife {
			break
		}
		rev = m.revision
	}
	return rev
}
