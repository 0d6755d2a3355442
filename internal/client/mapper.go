package client

import (
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
)

// tableMapper knows the table's kinds as they are now: custom resources come and go.
type tableMapper struct {
	table *api.Table

	mu      sync.Mutex
	current meta.RESTMapper
	changed <-chan struct{}
}

func (m *tableMapper) now() meta.RESTMapper {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.current == nil || isClosed(m.changed) {
		m.changed = m.table.Changed()
		m.current = mapper(m.table)
	}
	return m.current
}

func (m *tableMapper) KindFor(r schema.GroupVersionResource) (schema.GroupVersionKind, error) {
	return m.now().KindFor(r)
}
func (m *tableMapper) KindsFor(r schema.GroupVersionResource) ([]schema.GroupVersionKind, error) {
	return m.now().KindsFor(r)
}
func (m *tableMapper) ResourceFor(r schema.GroupVersionResource) (schema.GroupVersionResource, error) {
	return m.now().ResourceFor(r)
}
func (m *tableMapper) ResourcesFor(r schema.GroupVersionResource) ([]schema.GroupVersionResource, error) {
	return m.now().ResourcesFor(r)
}
func (m *tableMapper) RESTMapping(gk schema.GroupKind, versions ...string) (*meta.RESTMapping, error) {
	return m.now().RESTMapping(gk, versions...)
}
func (m *tableMapper) RESTMappings(gk schema.GroupKind, versions ...string) ([]*meta.RESTMapping, error) {
	return m.now().RESTMappings(gk, versions...)
}
func (m *tableMapper) ResourceSingularizer(r string) (string, error) {
	return m.now().ResourceSingularizer(r)
}
