package api

import corev1 "k8s.io/api/core/v1"

// sharePod lets pods that were made of one template have one copy of what is not their own. Lists that a pod has from its old state are left as they are.
func sharePod(obj, old Object, p *Pool) {
	pod, was := obj.(*corev1.Pod), &corev1.Pod{}
	if old != nil {
		was = old.(*corev1.Pod)
	}
	shareMeta(&pod.ObjectMeta, &was.ObjectMeta, p)
	s := &pod.Spec
	sharedText(p, &s.ServiceAccountName)
	sharedText(p, &s.DeprecatedServiceAccount)
	sharedText(p, &s.NodeName)
	sharedText(p, &s.SchedulerName)
	sharedText(p, &s.RestartPolicy)
	sharedText(p, &s.DNSPolicy)
	sharedText(p, &s.PriorityClassName)
	sharedMap(p, &s.NodeSelector)
	sharedList(p, &s.Tolerations)
	sharedList(p, &s.TopologySpreadConstraints)
	sharedList(p, &s.ImagePullSecrets)
	sharedPart(p, &s.SecurityContext)
	sharedPart(p, &s.Affinity)
	if !sameList(s.Volumes, was.Spec.Volumes) {
		for i := range s.Volumes {
			shareVolume(&s.Volumes[i], p)
		}
	}
	shareContainers(s.InitContainers, was.Spec.InitContainers, p)
	shareContainers(s.Containers, was.Spec.Containers, p)
}

func shareVolume(v *corev1.Volume, p *Pool) {
	sharedPart(p, &v.Projected)
	sharedPart(p, &v.ConfigMap)
	sharedPart(p, &v.Secret)
	sharedPart(p, &v.EmptyDir)
	sharedPart(p, &v.HostPath)
}

func shareContainers(list, was []corev1.Container, p *Pool) {
	if sameList(list, was) {
		return
	}
	for i := range list {
		shareContainer(&list[i], p)
	}
}

func shareContainer(c *corev1.Container, p *Pool) {
	sharedText(p, &c.Name)
	sharedText(p, &c.Image)
	sharedText(p, &c.ImagePullPolicy)
	sharedText(p, &c.TerminationMessagePath)
	sharedText(p, &c.TerminationMessagePolicy)
	sharedTexts(p, &c.Command)
	sharedTexts(p, &c.Args)
	sharedList(p, &c.Ports)
	sharedList(p, &c.Env)
	sharedList(p, &c.EnvFrom)
	if len(c.Resources.Limits)+len(c.Resources.Requests) > 0 {
		if p.scratch = p.scratch[:0]; p.put(&c.Resources) {
			c.Resources = seen(p, c.Resources)
		}
	}
	for _, probe := range []**corev1.Probe{&c.LivenessProbe, &c.ReadinessProbe, &c.StartupProbe} {
		sharedPart(p, probe)
	}
	sharedPart(p, &c.Lifecycle)
	sharedPart(p, &c.SecurityContext)
}
