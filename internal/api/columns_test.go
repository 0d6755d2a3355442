package api

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(noon.Add(-d)) }

// The states that containers are in, as a kubelet reports them.
func waiting(name, reason string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
}
func running(name string, ready bool) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: ready, Started: &ready, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
}
func ended(name, reason string, code int32) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code}}}
}
func restarted(s corev1.ContainerStatus, n int32, before time.Duration) corev1.ContainerStatus {
	s.RestartCount = n
	s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{FinishedAt: ago(before)}
	return s
}

// podWith makes a pod with the named containers; sidecars are init containers that stay.
func podWith(phase corev1.PodPhase, init, sidecar, main []string, change func(p *corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", CreationTimestamp: ago(time.Hour)}, Status: corev1.PodStatus{Phase: phase}}
	always := corev1.ContainerRestartPolicyAlways
	for _, n := range sidecar {
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: n, RestartPolicy: &always})
	}
	for _, n := range init {
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: n})
	}
	for _, n := range main {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n})
	}
	if change != nil {
		change(p)
	}
	return p
}

func condition(kind corev1.PodConditionType, s corev1.ConditionStatus, reason string) corev1.PodCondition {
	return corev1.PodCondition{Type: kind, Status: s, Reason: reason}
}

func TestPodColumns(t *testing.T) {
	one, two := []string{"a"}, []string{"a", "b"}
	cases := map[string]struct {
		pod                     *corev1.Pod
		ready, status, restarts string
	}{
		"just made": {podWith("Pending", nil, nil, one, nil), "0/1", "Pending", "0"},
		"gated": {podWith("Pending", nil, nil, one, func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodScheduled, corev1.ConditionFalse, corev1.PodReasonSchedulingGated)}
		}), "0/1", "SchedulingGated", "0"},
		"creating": {podWith("Pending", nil, nil, two, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("a", "ContainerCreating"), waiting("b", "ContainerCreating")}
		}), "0/2", "ContainerCreating", "0"},
		"first init runs": {podWith("Pending", two, nil, one, func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{running("a", false), waiting("b", "PodInitializing")}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("a", "PodInitializing")}
		}), "0/1", "Init:0/2", "0"},
		"second init runs": {podWith("Pending", two, nil, one, func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{ended("a", "Completed", 0), running("b", false)}
		}), "0/1", "Init:1/2", "0"},
		"init fails": {podWith("Pending", one, nil, one, func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{restarted(ended("a", "Error", 1), 1, 7*time.Second)}
		}), "0/1", "Init:Error", "1 (7s ago)"},
		"init dies of a signal": {podWith("Pending", one, nil, one, func(p *corev1.Pod) {
			s := ended("a", "", 137)
			s.State.Terminated.Signal = 9
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{s}
		}), "0/1", "Init:Signal:9", "0"},
		"init backs off": {podWith("Pending", one, nil, one, func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{restarted(waiting("a", "CrashLoopBackOff"), 4, 90*time.Second)}
		}), "0/1", "Init:CrashLoopBackOff", "4 (90s ago)"},
		"sidecar started, main creating": {podWith("Pending", nil, []string{"s"}, one, func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{running("s", true)}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("a", "PodInitializing")}
		}), "1/2", "PodInitializing", "0"},
		"sidecar restarted": {podWith("Running", nil, []string{"s"}, one, func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodInitialized, corev1.ConditionTrue, "")}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{restarted(running("s", true), 2, time.Hour)}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{running("a", true)}
		}), "2/2", "Running", "2 (60m ago)"},
		"running": {podWith("Running", nil, nil, two, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{running("a", true), running("b", false)}
		}), "1/2", "Running", "0"},
		"crash loop": {podWith("Running", nil, nil, one, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{restarted(waiting("a", "CrashLoopBackOff"), 3, 5*time.Second)}
		}), "0/1", "CrashLoopBackOff", "3 (5s ago)"},
		"image missing": {podWith("Pending", nil, nil, two, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{waiting("a", "ImagePullBackOff"), running("b", true)}
		}), "1/2", "ImagePullBackOff", "0"},
		"completed": {podWith("Succeeded", nil, nil, one, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{ended("a", "Completed", 0)}
		}), "0/1", "Completed", "0"},
		"one of two completed, ready": {podWith("Running", nil, nil, two, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{ended("a", "Completed", 0), running("b", true)}
			p.Status.Conditions = []corev1.PodCondition{condition(corev1.PodReady, corev1.ConditionTrue, "")}
		}), "1/2", "Running", "0"},
		"one of two completed, not ready": {podWith("Running", nil, nil, two, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{ended("a", "Completed", 0), running("b", true)}
		}), "1/2", "NotReady", "0"},
		"failed": {podWith("Failed", nil, nil, one, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{ended("a", "Error", 2)}
		}), "0/1", "Error", "0"},
		"failed without a reason": {podWith("Failed", nil, nil, one, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{ended("a", "", 3)}
		}), "0/1", "ExitCode:3", "0"},
		"killed for memory": {podWith("Running", nil, nil, one, func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{restarted(ended("a", "OOMKilled", 137), 1, 30*time.Second)}
		}), "0/1", "OOMKilled", "1 (30s ago)"},
		"evicted": {podWith("Failed", nil, nil, one, func(p *corev1.Pod) { p.Status.Reason = "Evicted" }), "0/1", "Evicted", "0"},
		"terminating": {podWith("Running", nil, nil, one, func(p *corev1.Pod) {
			now := ago(0)
			p.DeletionTimestamp = &now
			p.Status.ContainerStatuses = []corev1.ContainerStatus{running("a", true)}
		}), "1/1", "Terminating", "0"},
		"on a lost node": {podWith("Running", nil, nil, one, func(p *corev1.Pod) {
			now := ago(0)
			p.DeletionTimestamp, p.Status.Reason = &now, "NodeLost"
		}), "0/1", "Unknown", "0"},
		"completed and being removed": {podWith("Succeeded", nil, nil, one, func(p *corev1.Pod) {
			now := ago(0)
			p.DeletionTimestamp = &now
			p.Status.ContainerStatuses = []corev1.ContainerStatus{ended("a", "Completed", 0)}
		}), "0/1", "Completed", "0"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := map[string]any{}
			for _, col := range podColumns {
				got[col.Name] = col.Cell(c.pod, noon)
			}
			want := map[string]any{"Name": "p", "Ready": c.ready, "Status": c.status, "Restarts": c.restarts, "Age": "60m", "IP": "<none>", "Node": "<none>"}
			for k, v := range want {
				if got[k] != v {
					t.Errorf("%s is %q, want %q", k, got[k], v)
				}
			}
		})
	}
}

func TestServiceColumns(t *testing.T) {
	cases := map[string]struct {
		spec                corev1.ServiceSpec
		status              corev1.ServiceStatus
		ip, external, ports string
	}{
		"cluster IP": {corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 80, Protocol: "TCP"}, {Port: 53, Protocol: "UDP"}}},
			corev1.ServiceStatus{}, "10.0.0.1", "<none>", "80/TCP,53/UDP"},
		"headless":        {corev1.ServiceSpec{Type: "ClusterIP", ClusterIP: "None"}, corev1.ServiceStatus{}, "None", "<none>", "<none>"},
		"node port":       {corev1.ServiceSpec{Type: "NodePort", ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080, Protocol: "TCP"}}}, corev1.ServiceStatus{}, "10.0.0.1", "<none>", "80:30080/TCP"},
		"elsewhere":       {corev1.ServiceSpec{Type: "ExternalName", ExternalName: "example.com"}, corev1.ServiceStatus{}, "<none>", "example.com", "<none>"},
		"no balancer yet": {corev1.ServiceSpec{Type: "LoadBalancer", ClusterIP: "10.0.0.1"}, corev1.ServiceStatus{}, "10.0.0.1", "<pending>", "<none>"},
		"balanced": {corev1.ServiceSpec{Type: "LoadBalancer", ClusterIP: "10.0.0.1", ExternalIPs: []string{"9.9.9.9"}},
			corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: "1.2.3.4"}, {Hostname: "lb"}}}}, "10.0.0.1", "1.2.3.4,lb,9.9.9.9", "<none>"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := &corev1.Service{Spec: c.spec, Status: c.status}
			got := map[string]any{}
			for _, col := range serviceColumns {
				got[col.Name] = col.Cell(s, noon)
			}
			if got["Cluster-IP"] != c.ip || got["External-IP"] != c.external || got["Port(s)"] != c.ports {
				t.Errorf("%q, %q, %q; want %q, %q, %q", got["Cluster-IP"], got["External-IP"], got["Port(s)"], c.ip, c.external, c.ports)
			}
		})
	}
}

func TestNodeColumns(t *testing.T) {
	ready := func(s corev1.ConditionStatus) corev1.NodeStatus {
		return corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: s}}}
	}
	cases := map[string]struct {
		node          corev1.Node
		status, roles string
	}{
		"unheard of": {corev1.Node{}, "Unknown", "<none>"},
		"ready":      {corev1.Node{Status: ready("True")}, "Ready", "<none>"},
		"silent":     {corev1.Node{Status: ready("Unknown")}, "NotReady", "<none>"},
		"cordoned": {corev1.Node{Spec: corev1.NodeSpec{Unschedulable: true}, Status: ready("True"),
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}}},
			"Ready,SchedulingDisabled", "control-plane,worker"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if s, r := nodeStatus(&c.node), nodeRoles(&c.node); s != c.status || r != c.roles {
				t.Errorf("%q, %q; want %q, %q", s, r, c.status, c.roles)
			}
		})
	}
}
