; Time from the TSC, which is measured with two timers and asked of CPUID. One source alone may be wrong (a guest whose
; hypervisor takes the CPU away in the middle, a CPUID that a hypervisor copies from its host), so one is believed where
; another agrees with it.

; out: Results.clock, Results.ticks_per_ms; clobbers: everything
clock_init:
    call find_pm_timer
    call ask_cpuid
    mov dword ptr [clock_cpuid], eax
    mov dword ptr [clock_rounds], CLOCK_ROUNDS
.measure:
    mov ebx, pit_shot
    mov eax, dword ptr [clock_pit]
    call shortest_shot
    mov dword ptr [clock_pit], eax
    mov ebx, pm_timer_shot
    mov eax, dword ptr [clock_pm]
    call shortest_shot
    mov dword ptr [clock_pm], eax
    mov ecx, Clock.PIT_AND_PM_TIMER
    mov eax, dword ptr [clock_pit]
    mov edx, dword ptr [clock_pm]
    call clocks_agree
    jnc .set
    mov ecx, Clock.PIT_AND_CPUID
    mov edx, dword ptr [clock_cpuid]
    call clocks_agree
    jnc .set
    mov ecx, Clock.PM_TIMER_AND_CPUID
    mov eax, dword ptr [clock_pm]
    mov edx, dword ptr [clock_cpuid]
    call clocks_agree
    jnc .set
    ; none is confirmed. Where there are several, a busy host may have made the measurements too long: once more
    cmp dword ptr [clock_pit], 0
    je .greatest_of
    mov eax, dword ptr [clock_pm]
    or eax, dword ptr [clock_cpuid]
    jz .greatest_of
    dec dword ptr [clock_rounds]
    jnz .measure
.greatest_of:
    ; a wait that is too long costs time only
    mov eax, dword ptr [clock_pm]
    mov ecx, Clock.PM_TIMER
    mov edx, dword ptr [clock_cpuid]
    cmp eax, dword ptr [clock_pit]
    ja .pit_is_less
    mov eax, dword ptr [clock_pit]
    mov ecx, Clock.PIT
.pit_is_less:
    cmp eax, edx
    jae .greatest
    mov eax, edx
    mov ecx, Clock.CPUID
.greatest:
    test eax, eax
    jnz .set
    ; generous: ten seconds become 2^33 ticks
    mov eax, {{ "%#x" | format(guess_ticks_per_ms) }}
    mov ecx, Clock.GUESS
.set:
    mov dword ptr [results + Results.clock], ecx
    mov dword ptr [results + Results.ticks_per_ms], eax
    ret

; in: EAX and EDX, ticks a millisecond or 0; out: CF set where one is 0 or they differ by more than an eighth of EDX
; clobbers: EBX, EDX
clocks_agree:
    test eax, eax
    jz .no
    mov ebx, eax
    sub ebx, edx
    jnc .distance
    neg ebx
.distance:
    ; 0 agrees with nothing: the distance is then more than an eighth of it
    shr edx, 3
    cmp edx, ebx
    ret
.no:
    stc
    ret

; The shortest of CLOCK_SHOTS measurements and an earlier one: whatever takes the CPU away from us in between makes one
; longer, never shorter. One that fails is made again. in: EBX the routine of one, EAX the earlier one or 0
; out: EAX ticks a millisecond, 0 where there is no such timer; clobbers: everything
shortest_shot:
    mov dword ptr [clock_shot], ebx
    mov dword ptr [clock_best], eax
    mov dword ptr [clock_good], 0
    mov ebp, CLOCK_TRIES
.try:
    mov eax, dword ptr [clock_shot]
    call eax
    jc .done
    test eax, eax
    jz .failed
    mov edx, dword ptr [clock_best]
    ; nothing yet is the longest
    dec edx
    cmp eax, edx
    ja .longer
    mov dword ptr [clock_best], eax
.longer:
    inc dword ptr [clock_good]
    cmp dword ptr [clock_good], CLOCK_SHOTS
    jae .done
.failed:
    dec ebp
    jnz .try
.done:
    mov eax, dword ptr [clock_best]
    ret

; One measurement with PIT channel 2 (Intel 8254 data sheet).
; out: EAX ticks a millisecond, 0 where it failed, CF set where it would fail again; clobbers: EBX, ECX, EDX, ESI, EDI
pit_shot:
    in al, 0x61
    ; gate on, speaker off
    and al, 0xFC
    or al, 1
    out 0x61, al
    ; channel 2, low then high byte, mode 0: OUT goes high when the count has run out
    mov al, 0xB0
    out 0x43, al
    mov al, PIT_COUNT & 0xFF
    out 0x42, al
    ; before the count begins: see shortest_shot
    rdtsc
    mov esi, eax
    mov edi, edx
    mov al, PIT_COUNT >> 8
    out 0x42, al
    mov ecx, CLOCK_POLLS
    xor ebx, ebx
.poll:
    in al, 0x61
    test al, 0x20
    jnz .high
    inc ebx
    pause
    dec ecx
    jnz .poll
    xor eax, eax
    stc
    ret
.high:
    ; high from the start: there is no timer, or we were away for all of its time
    cmp ebx, 2
    jb ticks_per_ms.failed
    mov ebx, CLOCK_MS
    mov ecx, 1
    jmp ticks_per_ms

; One measurement with ACPI's power management timer (ACPI 6.5, 4.8.3.3): 3.579545 MHz, of which 24 bits always count.
; out and clobbers: as pit_shot
pm_timer_shot:
    mov edx, dword ptr [pm_timer_port]
    test edx, edx
    stc
    jz .none
    rdtsc
    mov esi, eax
    mov edi, edx
    mov edx, dword ptr [pm_timer_port]
    in eax, dx
    mov ebx, eax
    mov ecx, CLOCK_POLLS
.poll:
    pause
    in eax, dx
    sub eax, ebx
    and eax, 0xFFFFFF
    cmp eax, CLOCK_MS * PM_TIMER_PER_MS
    jae .passed
    dec ecx
    jnz .poll
    stc
.none:
    mov eax, 0
    ret
.passed:
    mov ebx, eax
    mov ecx, PM_TIMER_PER_MS

; What two readings of the TSC come to. in: EDI:ESI the first one, EBX/ECX milliseconds since
; out: EAX ticks a millisecond, 0 where that cannot be, CF clear; clobbers: ECX, EDX
ticks_per_ms:
    rdtsc
    sub eax, esi
    sbb edx, edi
    jnz .failed
    mul ecx
    cmp edx, ebx
    jae .failed
    div ebx
    cmp eax, 1000
    jae .good
.failed:
    xor eax, eax
.good:
    clc
    ret

; What CPUID says (SDM volume 2A; 40000010h is a convention of hypervisors). out: EAX ticks a millisecond, 0 where it says
; nothing; clobbers: EBX, ECX, EDX, ESI, EDI
ask_cpuid:
    xor eax, eax
    cpuid
    mov esi, eax
    cmp esi, 0x15
    jb .hypervisor
    mov eax, 0x15
    xor ecx, ecx
    cpuid
    ; TSC Hz = ECX * EBX / EAX
    mov edi, eax
    mov eax, ecx
    mul ebx
    cmp edx, edi
    ; also where EAX is 0
    jae .hypervisor
    div edi
    xor edx, edx
    mov ecx, 1000
    div ecx
    test eax, eax
    jnz .said
.hypervisor:
    mov eax, 1
    cpuid
    bt ecx, 31
    jnc .base
    mov eax, 0x40000000
    cpuid
    cmp eax, 0x40000010
    jb .base
    cmp eax, 0x400000FF
    ja .base
    mov eax, 0x40000010
    cpuid
    ; kHz
    test eax, eax
    jnz .said
.base:
    xor eax, eax
    cmp esi, 0x16
    jb .said
    mov eax, 0x16
    xor ecx, ecx
    cpuid
    and eax, 0xFFFF
    imul eax, eax, 1000
.said:
    ret

; Starts a bounded wait. in: EAX milliseconds, EBX where the deadline is kept (8 bytes); clobbers: EAX, ECX, EDX
set_deadline:
    mul dword ptr [results + Results.ticks_per_ms]
    mov ecx, eax
    push edx
    rdtsc
    add eax, ecx
    pop ecx
    adc edx, ecx
    mov dword ptr [ebx], eax
    mov dword ptr [ebx + 4], edx
    ret

; Has it run out? in: EBX the deadline; out: CF clear once it has; clobbers: EAX, EDX
check_deadline:
    rdtsc
    sub eax, dword ptr [ebx]
    sbb edx, dword ptr [ebx + 4]
    ret

; Waits. in: EAX milliseconds; clobbers: EAX, ECX, EDX
wait_ms:
    push ebx
    mov ebx, wait_deadline
    call set_deadline
.spin:
    pause
    call check_deadline
    jc .spin
    pop ebx
    ret
