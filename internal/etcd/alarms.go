package etcd

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// roomNeeded is how much disk must be free before a space alarm is taken back.
const roomNeeded = 64 << 20

// clearAlarms takes a NOSPACE alarm back once the disk has room and the database is below its quota, so that nobody has to restart anything after
// making room. etcd raises the alarm as soon as a write fails for want of space, and keeps it until somebody says otherwise.
func (m *Member) clearAlarms(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		resp, err := m.client.AlarmList(ctx)
		if err != nil || len(resp.Alarms) == 0 || !m.hasRoom() {
			continue
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
}

func (m *Member) hasRoom() bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.cfg.Dir, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < roomNeeded {
		return false
	}
	return true
}
