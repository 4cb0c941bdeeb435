; Time from the TSC, calibrated against PIT channel 2 (Intel 8254 data sheet), otherwise CPUID 15h/16h, otherwise a guess.

; out: Results.clock, Results.ticks_per_ms; clobbers: EAX, EBX, ECX, EDX, EBP, ESI, EDI
clock_init:
    ; The shortest of a few measurements: whatever takes the CPU away from us in between makes one longer, never shorter.
    mov ebp, PIT_SHOTS
    mov dword ptr [results + Results.ticks_per_ms], 0xFFFFFFFF
.shot:
    in al, 0x61
    mov ecx, eax
    ; gate on, speaker off
    and al, 0xFC
    or al, 1
    out 0x61, al
    ; channel 2, low then high byte, mode 0: OUT goes high when the count has run out
    mov al, 0xB0
    out 0x43, al
    mov al, PIT_COUNT & 0xFF
    out 0x42, al
    mov al, PIT_COUNT >> 8
    out 0x42, al
    rdtsc
    mov esi, eax
    mov edi, edx
    mov ecx, PIT_POLLS
    xor ebx, ebx
.poll:
    in al, 0x61
    test al, 0x20
    jnz .high
    inc ebx
    pause
    dec ecx
    jnz .poll
    jmp .no_pit
.high:
    ; high from the start: there is no timer
    cmp ebx, 2
    jb .no_pit
    rdtsc
    sub eax, esi
    sbb edx, edi
    jnz .no_pit
    mov ecx, PIT_MS
    div ecx
    cmp eax, 1000
    jb .no_pit
    cmp eax, dword ptr [results + Results.ticks_per_ms]
    jae .longer
    mov dword ptr [results + Results.ticks_per_ms], eax
.longer:
    dec ebp
    jnz .shot
    mov eax, dword ptr [results + Results.ticks_per_ms]
    mov ecx, Clock.PIT
    jmp .set
.no_pit:
    xor eax, eax
    cpuid
    mov esi, eax
    cmp esi, 0x15
    jb .guess
    mov eax, 0x15
    xor ecx, ecx
    cpuid
    ; TSC Hz = ECX * EBX / EAX
    test eax, eax
    jz .base
    test ebx, ebx
    jz .base
    test ecx, ecx
    jz .base
    mov edi, eax
    mov eax, ecx
    mul ebx
    cmp edx, edi
    jae .base
    div edi
    xor edx, edx
    mov ecx, 1000
    div ecx
    mov ecx, Clock.CPUID
    jmp .set
.base:
    cmp esi, 0x16
    jb .guess
    mov eax, 0x16
    cpuid
    and eax, 0xFFFF
    jz .guess
    imul eax, eax, 1000
    mov ecx, Clock.CPUID
    jmp .set
.guess:
    ; generous: ten seconds become 2^33 ticks
    mov eax, {{ "%#x" | format(guess_ticks_per_ms) }}
    mov ecx, Clock.GUESS
.set:
    mov dword ptr [results + Results.clock], ecx
    mov dword ptr [results + Results.ticks_per_ms], eax
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
