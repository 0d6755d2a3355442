package harness

import (
	"context"
	"fmt"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/api"
)

// Kinds is what there is: *api.Table. Custom resources come and go.
type Kinds interface {
	All() []*api.Resource
	ByResource(gr schema.GroupResource) *api.Resource
	Changed() <-chan struct{}
}

// follow lets a controller add watches of kinds that come while it runs; stop ends those.
func (r *running) follow(ctx context.Context, start func(Watch) (stop func(), err error)) (stop func()) {
	if r.Follow == nil {
		return func() {}
	}
	var mu sync.Mutex
	var stops []func()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Follow(ctx, func(w Watch) {
			stop, err := start(w)
			if err != nil {
				r.log.Warn("a kind that came cannot be watched", "err", fmt.Errorf("%s: %w", r.Name, err))
				return
			}
			mu.Lock()
			defer mu.Unlock()
			stops = append(stops, stop)
		})
	}()
	return func() {
		<-ended
		for _, stop := range stops {
			stop()
		}
	}
}

// EachCustom calls changed once at first and whenever rows have come or gone, with all rows and those of custom resources that are new, until ctx
// ends. A row that takes the place of one of the same definition is not new.
func EachCustom(ctx context.Context, kinds Kinds, changed func(all, fresh []*api.Resource)) {
	had := map[types.UID]bool{}
	for {
		next := kinds.Changed()
		all := kinds.All()
		has := map[types.UID]bool{}
		var fresh []*api.Resource
		for _, row := range all {
			if row.Custom == nil {
				continue
			}
			has[row.Custom.Definition] = true
			if !had[row.Custom.Definition] {
				fresh = append(fresh, row)
			}
		}
		had = has
		changed(all, fresh)
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}
