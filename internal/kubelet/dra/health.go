package dra

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	healthapi "k8s.io/kubelet/pkg/apis/dra-health/v1"
	healthold "k8s.io/kubelet/pkg/apis/dra-health/v1alpha1"
)

// usualHold is how long a driver's word on a device's health holds, if it doesn't say.
const usualHold = 30 * time.Second

type device struct{ driver, pool, name string }

type health struct {
	status  corev1.ResourceHealthStatus
	message string
	until   time.Time
}

func healthService(versions []string) string {
	for _, s := range []string{healthapi.DRAResourceHealthService, healthold.DRAResourceHealthService} {
		if slices.Contains(versions, s) {
			return s
		}
	}
	return ""
}

// watchHealth follows what a driver says of its devices' health (KEP-4680), until ctx ends or it turns out that it says nothing.
func (n *Node) watchHealth(ctx context.Context, d *driver) {
	for delay := time.Second; ctx.Err() == nil; delay = min(2*delay, time.Minute) {
		err := n.healthStream(ctx, d, func() { delay = time.Second })
		n.unknown(d.name)
		if status.Code(err) == codes.Unimplemented {
			return
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
}

func (n *Node) healthStream(ctx context.Context, d *driver, heard func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	desc := &grpc.StreamDesc{StreamName: "NodeWatchResources", ServerStreams: true}
	stream, err := d.conn.NewStream(ctx, desc, "/"+d.health+"/NodeWatchResources", grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&healthapi.NodeWatchResourcesRequest{}); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		var news healthapi.NodeWatchResourcesResponse
		if err := stream.RecvMsg(&news); err != nil {
			return err
		}
		heard()
		n.heard(ctx, d.name, news.Devices)
	}
}

// heard takes in what a driver says. What it doesn't say again in time is unknown.
func (n *Node) heard(ctx context.Context, driver string, news []*healthapi.DeviceHealth) {
	now := time.Now()
	changed := map[device]bool{}
	n.mu.Lock()
	for _, h := range news {
		key := device{driver, h.GetDevice().GetPoolName(), h.GetDevice().GetDeviceName()}
		hold := usualHold
		if s := h.GetHealthCheckTimeoutSeconds(); s > 0 {
			hold = time.Duration(s) * time.Second
		}
		next := health{wireHealth(h.GetHealth()), short(h.GetMessage()), now.Add(hold)}
		old := n.health[key]
		if old.status != next.status || old.message != next.message || !now.Before(old.until) {
			changed[key] = true
		}
		n.health[key] = next
		time.AfterFunc(hold+time.Millisecond, func() { n.stale(ctx, key) })
	}
	n.mu.Unlock()
	n.tell(func(d device) bool { return changed[d] })
}

// stale tells of a device's health that nobody has confirmed in time.
func (n *Node) stale(ctx context.Context, key device) {
	n.mu.Lock()
	h, ok := n.health[key]
	over := ok && ctx.Err() == nil && !time.Now().Before(h.until)
	n.mu.Unlock()
	if over {
		n.tell(func(d device) bool { return d == key })
	}
}

// unknown: a driver that is away says nothing of its devices.
func (n *Node) unknown(driver string) {
	n.mu.Lock()
	for key := range n.health {
		if key.driver == driver {
			delete(n.health, key)
		}
	}
	n.mu.Unlock()
	n.tell(func(d device) bool { return d.driver == driver })
}

// tell wakes the pods that use certain devices.
func (n *Node) tell(of func(device) bool) {
	var pods []types.UID
	n.mu.Lock()
	for _, c := range n.book.claims {
		for driver, list := range c.Drivers {
			if slices.ContainsFunc(list, func(p prepared) bool { return of(device{driver, p.Pool, p.Device}) }) {
				pods = append(pods, c.Pods...)
			}
		}
	}
	n.mu.Unlock()
	if len(pods) > 0 && n.Changed != nil {
		n.Changed(pods)
	}
}

func wireHealth(s healthapi.HealthStatus) corev1.ResourceHealthStatus {
	switch s {
	case healthapi.HealthStatus_HEALTHY:
		return corev1.ResourceHealthStatusHealthy
	case healthapi.HealthStatus_UNHEALTHY:
		return corev1.ResourceHealthStatusUnhealthy
	}
	return corev1.ResourceHealthStatusUnknown
}

func short(message string) string {
	if len(message) > corev1.ResourceHealthMessageMaxLength {
		return message[:corev1.ResourceHealthMessageMaxLength-3] + "..."
	}
	return message
}

// Health is what a container's status says of its devices. Those of the claims named in its spec are listed, by their CDI names where they have them.
func (n *Node) Health(pod *corev1.Pod, c *corev1.Container) []corev1.ResourceStatus {
	if len(c.Resources.Claims) == 0 {
		return nil
	}
	now := time.Now()
	var out []corev1.ResourceStatus
	_ = n.each(pod, c, func(u use, driver string, d prepared) { // of what is not prepared there is nothing to say
		id := driver + "/" + d.Pool + "/" + d.Device
		if len(d.CDI) > 0 {
			id = d.CDI[0]
		}
		one := corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: corev1.ResourceHealthStatusUnknown}
		if h, ok := n.health[device{driver, d.Pool, d.Device}]; ok && now.Before(h.until) {
			one.Health = h.status
			if h.message != "" {
				one.Message = &h.message
			}
		}
		i := slices.IndexFunc(out, func(s corev1.ResourceStatus) bool { return string(s.Name) == u.name })
		if i < 0 {
			i, out = len(out), append(out, corev1.ResourceStatus{Name: corev1.ResourceName(u.name)})
		}
		if !slices.ContainsFunc(out[i].Resources, func(r corev1.ResourceHealth) bool { return r.ResourceID == one.ResourceID }) {
			out[i].Resources = append(out[i].Resources, one)
		}
	})
	return out
}
