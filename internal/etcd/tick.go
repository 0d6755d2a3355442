package etcd

import (
	"reflect"
	"time"
	"unsafe"

	"go.etcd.io/etcd/server/v3/etcdserver"
)

// idleTick is how often raft's clock ticks once the only member has elected itself.
const idleTick = 250 * time.Millisecond

// calm slows raft's clock. Short ticks make the election of a single member take milliseconds; afterwards there is nobody to send heartbeats to, and a
// hundred ticks a second would be most of what an idle cluster costs. etcd offers no setting that changes, so this reaches for its ticker; should a
// later etcd keep it elsewhere, the clock stays as it is and nothing else changes.
func calm(s *etcdserver.EtcdServer) bool {
	node := reflect.ValueOf(s).Elem().FieldByName("r")
	if !node.IsValid() || node.Kind() != reflect.Struct {
		return false
	}
	field := node.FieldByName("ticker")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*time.Ticker]() || !field.CanAddr() {
		return false
	}
	ticker := *(**time.Ticker)(unsafe.Pointer(field.UnsafeAddr())) //nolint:gosec // its type has just been checked
	if ticker == nil {
		return false
	}
	ticker.Reset(idleTick)
	return true
}
