package oom

import (
	"strings"
	"testing"
)

// Logs as kernels write them.
const (
	ofContainer = `6,993,10968628555,-;memory: usage 20480kB, limit 20480kB, failcnt 68
6,994,10968628558,-;memory+swap: usage 20480kB, limit 9007199254740988kB, failcnt 0
6,996,10968628562,-;Memory cgroup stats for /skiff/kubepods/burstable/podu-1/c1:
4,1042,10968628674,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c1,mems_allowed=0,oom_memcg=/skiff/kubepods/burstable/podu-1/c1,task_memcg=/skiff/kubepods/burstable/podu-1/c1,task=python3,pid=20970,uid=0
3,1043,10968628689,-;Memory cgroup out of memory: Killed process 20970 (python3) total-vm:221368kB, anon-rss:20224kB, file-rss:6700kB, shmem-rss:0kB, UID:0 pgtables:96kB oom_score_adj:0`
	ofPod = `6,1,5,-;memory: usage 65536kB, limit 65536kB, failcnt 7
4,2,6,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=0,2,cpuset=c2,mems_allowed=0-1,oom_memcg=/kubepods/podu-2,task_memcg=/kubepods/podu-2/c2/sub,task=a b,pid=7,uid=5
3,3,7,-;Memory cgroup out of memory: Killed process 7 (a b) total-vm:1kB, anon-rss:1024kB, file-rss:0kB, shmem-rss:2048kB, UID:5 pgtables:96kB oom_score_adj:0`
	ofNode = `4,2,6,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/kubepods/besteffort/podu-3/c3,task=eater,pid=8,uid=0
3,3,7,-;Out of memory: Killed process 8 (eater) total-vm:1kB, anon-rss:1048576kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:96kB oom_score_adj:1000`
	another = `4,2,6,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/user.slice/podcast,task_memcg=/user.slice/podcast,task=x,pid=9,uid=0
3,3,7,-;Memory cgroup out of memory: Killed process 9 (x) total-vm:1kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB`
	other = "6,1,5,-;usb 1-1: new device\n SUBSYSTEM=usb\n3,1,5,-;Killed process 1 (x)"
)

func TestKills(t *testing.T) {
	for name, c := range map[string]struct{ log, pod, container, want string }{
		"the container's limit": {ofContainer, "u-1", "c1", "Process python3 (20970) of container main was killed: container main reached its memory limit of 20Mi (in use 20Mi, reached 68 times); " +
			"it held 20224Ki anonymous, 6700Ki file and 0 shared memory"},
		"the pod's limit": {ofPod, "u-2", "c2", "Process a b (7) of container main was killed: the pod reached its memory limit of 64Mi (in use 64Mi, reached 7 times); " +
			"it held 1Mi anonymous, 0 file and 2Mi shared memory"},
		"the node": {ofNode, "u-3", "c3", "Process eater (8) of container main was killed: the node ran out of memory; it held 1Gi anonymous, 0 file and 0 shared memory"},
		"somebody else's": {another, "", "", "Process x (9) of container main was killed: the memory limit of cgroup /user.slice/podcast was reached; " +
			"it held 4Ki anonymous, 0 file and 0 shared memory"},
		"nothing": {other, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var r reader
			got := ""
			for line := range strings.Lines(c.log) {
				_, text, ok := record(line)
				if !ok {
					continue
				}
				if k := r.line(text); k != nil {
					got += k.Message("main")
					if pod, container := k.Pod(); string(pod) != c.pod || container != c.container {
						t.Errorf("pod %q, container %q", pod, container)
					}
				}
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
