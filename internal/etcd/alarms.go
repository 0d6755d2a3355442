package etcd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// etcd ends its process when its database or log cannot be written. So that a full disk stops writes and nothing else, two things are kept:
// writes are refused while less than roomNeeded is free, and the database file has reserve bytes of disk set aside for what was accepted before.
const (
	roomNeeded = 32 << 20
	reserve    = 24 << 20
)

// watchSpace keeps the reserve as the database grows, and takes a NOSPACE alarm back once the disk has room and the database is below its quota, so
// that nobody has to restart anything after making room.
func (m *Member) watchSpace(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for told := false; ; {
		if err := m.setAside(); err != nil && !told {
			m.cfg.Log.Warn("cannot set disk space aside for etcd; a full disk may stop it", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m.clearAlarms(ctx)
	}
}

func (m *Member) clearAlarms(ctx context.Context) {
	resp, err := m.client.AlarmList(ctx)
	if err != nil || len(resp.Alarms) == 0 || !m.hasRoom() {
		return
	}
	for _, a := range resp.Alarms {
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			m.cfg.Log.Error("etcd reports a corrupt database; restore a snapshot", "member", a.MemberID)
			continue
		}
		if _, err := m.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err == nil {
			m.cfg.Log.Info("there is room again; etcd takes writes")
		}
	}
}

// setAside allocates the database file's blocks, holes and all, and the reserve behind its end. Its length stays as it is.
func (m *Member) setAside() error {
	f, err := os.OpenFile(filepath.Join(m.cfg.Dir, "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, st.Size()+reserve); err != nil {
		return fmt.Errorf("allocate %d bytes behind %s: %w", reserve, f.Name(), err)
	}
	return nil
}

// roomAge is how long the answer about the disk's room holds: asking before every write was 2 % of what creating a pod costs. What is written within that
// time is little beside roomNeeded.
const roomAge = 10 * time.Millisecond

// room is what was found when the disk's room was last looked for.
type room struct {
	at    time.Time
	found bool
}

// hasRoom is asked before every write.
func (m *Member) hasRoom() bool {
	now := time.Now()
	if last := m.room.Load(); last != nil && now.Sub(last.at) < roomAge {
		return last.found
	}
	var fs unix.Statfs_t
	err := unix.Statfs(m.cfg.Dir, &fs)
	found := err == nil && fs.Bavail*uint64(fs.Bsize) >= roomNeeded
	m.room.Store(&room{now, found})
	return found
}

// whileThereIsRoom refuses transactions, which are all the writes there are, while the disk is nearly full.
func (m *Member) whileThereIsRoom(kv etcdserverpb.KVServer) func(context.Context, *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
	return func(ctx context.Context, r *etcdserverpb.TxnRequest) (*etcdserverpb.TxnResponse, error) {
		if !m.hasRoom() {
			return nil, rpctypes.ErrNoSpace
		}
		resp, err := kv.Txn(ctx, r)
		return resp, clientv3.ContextError(ctx, err)
	}
}
