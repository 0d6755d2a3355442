package volume

import (
	"context"
	"fmt"
	"path"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"skiff.dev/skiff/internal/kubelet/downward"
)

const defaultMode = int32(0o644)

// payload is the content a volume should have now.
func (m *Manager) payload(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, p *Pod, now time.Time) (map[string]file, error) {
	files := map[string]file{}
	switch {
	case v.ConfigMap != nil:
		s := v.ConfigMap
		return files, m.configMap(ctx, pod, s.Name, s.Items, s.Optional, mode(s.DefaultMode), files)
	case v.Secret != nil:
		s := v.Secret
		return files, m.secret(ctx, pod, s.SecretName, s.Items, s.Optional, mode(s.DefaultMode), files)
	case v.DownwardAPI != nil:
		return files, m.downward(pod, v.DownwardAPI.Items, mode(v.DownwardAPI.DefaultMode), files)
	}
	for i := range v.Projected.Sources {
		if err := m.projected(ctx, pod, v, i, p, now, files); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func mode(m *int32) int32 {
	if m == nil {
		return defaultMode
	}
	return *m
}

func (m *Manager) projected(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, index int, p *Pod, now time.Time, files map[string]file) error {
	def := mode(v.Projected.DefaultMode)
	switch s := v.Projected.Sources[index]; {
	case s.ConfigMap != nil:
		return m.configMap(ctx, pod, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, def, files)
	case s.Secret != nil:
		return m.secret(ctx, pod, s.Secret.Name, s.Secret.Items, s.Secret.Optional, def, files)
	case s.DownwardAPI != nil:
		return m.downward(pod, s.DownwardAPI.Items, def, files)
	case s.ServiceAccountToken != nil:
		text, err := m.token(ctx, pod, fmt.Sprintf("%s/%d", v.Name, index), s.ServiceAccountToken, p, now)
		if err != nil {
			return fmt.Errorf("failed to fetch token: %w", err)
		}
		files[s.ServiceAccountToken.Path] = private(pod, []byte(text), def)
		return nil
	case s.ClusterTrustBundle != nil:
		text, err := m.trust(ctx, s.ClusterTrustBundle)
		if err != nil {
			return err
		}
		files[path.Clean(s.ClusterTrustBundle.Path)] = file{data: text, mode: def}
		return nil
	case s.PodCertificate != nil:
		return m.certificate(ctx, pod, fmt.Sprintf("%s/%d", v.Name, index), s.PodCertificate, def, p, now, files)
	}
	return nil
}

// private is a file for the pod's own user or group alone, where it has one.
func private(pod *corev1.Pod, data []byte, def int32) file {
	f := file{data: data, mode: def}
	f.uid = commonUser(pod)
	if f.uid != nil || fsGroup(pod) != nil { // the group gets its right to read with the rest of the volume
		f.mode = 0o600
	}
	return f
}

// token returns the token of before unless four fifths of its life are over.
func (m *Manager) token(ctx context.Context, pod *corev1.Pod, key string, s *corev1.ServiceAccountTokenProjection, p *Pod, now time.Time) (string, error) {
	if t, ok := p.tokens[key]; ok && now.Before(t.refresh) {
		return t.text, nil
	}
	seconds := int64(3600)
	if s.ExpirationSeconds != nil {
		seconds = *s.ExpirationSeconds
	}
	text, expires, err := m.source.Token(ctx, pod, s.Audience, seconds)
	if err != nil {
		return "", err
	}
	life := min(expires.Sub(now)*4/5, 24*time.Hour)
	p.tokens[key] = token{text, now.Add(life)}
	return text, nil
}

// commonUser is the user all containers run as, if they all say so and agree.
func commonUser(pod *corev1.Pod) *int64 {
	var common *int64
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			var uid *int64
			if pod.Spec.SecurityContext != nil {
				uid = pod.Spec.SecurityContext.RunAsUser
			}
			if sc := list[i].SecurityContext; sc != nil && sc.RunAsUser != nil {
				uid = sc.RunAsUser
			}
			if uid == nil || (common != nil && *common != *uid) {
				return nil
			}
			common = uid
		}
	}
	return common
}

// Named puts a kubelet's word for an object that is not there in place of the API's, which speaks of resources: that is what statuses and events say.
func Named(kind, name string, err error) error {
	if apierrors.IsNotFound(err) {
		return apierrors.NewNotFound(corev1.Resource(kind), name)
	}
	return err
}

func (m *Manager) configMap(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, optional *bool, def int32, files map[string]file) error {
	may := optional != nil && *optional
	cm, err := m.source.ConfigMap(ctx, pod.Namespace, name)
	err = Named("configmap", name, err)
	if err != nil {
		if apierrors.IsNotFound(err) && may {
			return nil
		}
		return err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return pick("configmap", pod.Namespace, name, data, items, may, def, files)
}

func (m *Manager) secret(ctx context.Context, pod *corev1.Pod, name string, items []corev1.KeyToPath, optional *bool, def int32, files map[string]file) error {
	may := optional != nil && *optional
	s, err := m.source.Secret(ctx, pod.Namespace, name)
	err = Named("secret", name, err)
	if err != nil {
		if apierrors.IsNotFound(err) && may {
			return nil
		}
		return err
	}
	return pick("secret", pod.Namespace, name, s.Data, items, may, def, files)
}

// pick puts an object's keys in place: all of them under their own names, or the items at their paths.
func pick(kind, namespace, name string, data map[string][]byte, items []corev1.KeyToPath, optional bool, def int32, files map[string]file) error {
	if items == nil {
		for k, v := range data {
			files[k] = file{data: v, mode: def}
		}
		return nil
	}
	for _, item := range items {
		content, ok := data[item.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("%s references non-existent %s key: %s", kind, kind, item.Key)
		}
		f := file{data: content, mode: def}
		if item.Mode != nil {
			f.mode = *item.Mode
		}
		files[path.Clean(item.Path)] = f
	}
	return nil
}

func (m *Manager) downward(pod *corev1.Pod, items []corev1.DownwardAPIVolumeFile, def int32, files map[string]file) error {
	for _, item := range items {
		var text string
		var err error
		switch {
		case item.FieldRef != nil:
			text, err = downward.Field(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			text, err = downward.Resource(pod, item.ResourceFieldRef.ContainerName, item.ResourceFieldRef, m.facts().Allocatable)
		}
		if err != nil {
			return err
		}
		f := file{data: []byte(text), mode: def}
		if item.Mode != nil {
			f.mode = *item.Mode
		}
		files[path.Clean(item.Path)] = f
	}
	return nil
}
