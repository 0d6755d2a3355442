package serve

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/kubelet/logs"
	"skiff.dev/skiff/internal/kubelet/pod"
)

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	options, err := logOptions(r.URL.Query())
	if err != nil {
		refuse(w, err)
		return
	}
	a, view, err := s.find(r)
	if err != nil {
		refuse(w, err)
		return
	}
	c, err := incarnation(view, r.PathValue("container"), options.Previous)
	if err != nil {
		refuse(w, err)
		return
	}
	if _, err := os.Stat(c.LogPath); err != nil {
		http.Error(w, fmt.Sprintf("failed to try resolving symlinks in path %q: %v", c.LogPath, err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	flush := &flusher{ResponseWriter: w}
	flush.f, _ = w.(http.Flusher)
	if options.Follow {
		flush.Flush()
	}
	var ended <-chan struct{}
	if options.Follow && c.Running() {
		ended = a.Exit(c.ID)
	}
	o := logs.OptionsFrom(options, time.Now())
	o.Follow = o.Follow && c.Running()
	if err := logs.Copy(r.Context(), c.LogPath, o, ended, flush); err != nil && r.Context().Err() == nil {
		s.cfg.Log.Info("cannot go on sending a log", "container", c.Name, "err", err)
	}
}

type flusher struct {
	http.ResponseWriter
	f http.Flusher
}

func (f *flusher) Flush() {
	if f.f != nil {
		f.f.Flush()
	}
}

// logOptions reads what a log is asked for. Beside the API's parameters kubelets know tail, which may be "all".
func logOptions(query url.Values) (*corev1.PodLogOptions, error) {
	switch tail := query.Get("tail"); tail {
	case "":
	case "all":
		query.Del("tailLines")
	default:
		query.Set("tailLines", tail)
	}
	o, err := api.LogOptions(query)
	if err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error()}
	}
	if errs := api.ValidateLogOptions(o); len(errs) > 0 {
		return nil, &refusal{http.StatusUnprocessableEntity, errs.ToAggregate().Error()}
	}
	return o, nil
}

// incarnation whose log is asked for: the newest, or the one that ended before it.
func incarnation(view pod.View, name string, previous bool) (*pod.Container, error) {
	if pod.Spec(view.Pod, name) == nil {
		return nil, &refusal{http.StatusNotFound, fmt.Sprintf("container %q not found in pod %q", name, view.Pod.Name)}
	}
	var all []*pod.Container
	for i := range view.Containers {
		if view.Containers[i].Name == name {
			all = append(all, &view.Containers[i])
		}
	}
	if previous {
		// While a container waits for its next start, the end it had last is "previous" already.
		waits := waiting(view.Pod, name) != nil
		for i, c := range all {
			if c.Exited() && (i > 0 || waits) {
				return c, nil
			}
		}
		return nil, &refusal{http.StatusBadRequest, fmt.Sprintf("previous terminated container %q in pod %q not found", name, view.Pod.Name)}
	}
	for _, c := range all {
		if c.Running() || c.Exited() {
			return c, nil
		}
	}
	message := fmt.Sprintf("container %q in pod %q is waiting to start", name, view.Pod.Name)
	if w := waiting(view.Pod, name); w != nil {
		message += ": " + w.Reason
		if w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			message = fmt.Sprintf("container %q in pod %q is waiting to start: %s", name, view.Pod.Name, w.Message)
		}
	}
	return nil, &refusal{http.StatusBadRequest, message}
}

func waiting(p *corev1.Pod, name string) *corev1.ContainerStateWaiting {
	for _, list := range [][]corev1.ContainerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			if list[i].Name == name {
				return list[i].State.Waiting
			}
		}
	}
	return nil
}
