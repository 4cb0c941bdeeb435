; Exceptions: every vector is recorded with its error code, EIP and CPU instead of ending in a triple fault.
; entry state of each stub: as the CPU leaves it (SDM volume 3, 6.12); they do not return

{% for vector in range(32) %}
fault_{{ vector }}:
{% if vector not in vectors_with_error_code %}
    push 0
{% endif %}
    push {{ vector }}
    jmp fault_common
{% endfor %}

; Builds the IDT from the table of stubs and loads it. clobbers: EAX, ECX, EDI
faults_init:
    xor ecx, ecx
    mov edi, idt
.gate:
    mov eax, dword ptr [fault_stubs + 4 * ecx]
    call .set
    add edi, 8
    inc ecx
    cmp ecx, 32
    jb .gate
{% for vector, handler in (("WAKE_VECTOR", "wake"), ("TIMER_VECTOR", "timer"), ("0xFF", "spurious")) %}
    mov edi, idt + 8 * {{ vector }}
    mov eax, {{ handler }}_interrupt
    call .set
{% endfor %}
    lidt [idt_pointer]
    ret
; in: EAX handler, EDI gate; clobbers: EAX
.set:
    mov word ptr [edi], ax
    mov word ptr [edi + 2], CODE_SELECTOR
    ; present, ring 0, 32-bit interrupt gate
    mov word ptr [edi + 4], 0x8E00
    shr eax, 16
    mov word ptr [edi + 6], ax
    ret

; stack: vector, error code, EIP, CS, EFLAGS
fault_common:
    cld
    ; whose stack is it? An ESP outside all of them belongs to no CPU: record it in entry 0
    mov eax, esp
    sub eax, stacks
    xor edx, edx
    mov ecx, STACK_SIZE
    div ecx
    cmp eax, CPU_TABLE
    jb .known
    xor eax, eax
.known:
    mov ebp, eax
    imul ebx, eax, Cpu.SIZE
    add ebx, results + Results.cpu
    ; a fault inside this handler: keep the first, stop
    cmp dword ptr [ebx + Cpu.fault + Fault.vector_plus_1], 0
    jne final_park
    mov eax, dword ptr [esp + 4]
    mov dword ptr [ebx + Cpu.fault + Fault.error], eax
    mov eax, dword ptr [esp + 8]
    mov dword ptr [ebx + Cpu.fault + Fault.eip], eax
    mov eax, dword ptr [esp + 16]
    mov dword ptr [ebx + Cpu.fault + Fault.eflags], eax
    mov eax, cr2
    mov dword ptr [ebx + Cpu.fault + Fault.cr2], eax
    mov eax, dword ptr [esp]
    inc eax
    mov dword ptr [ebx + Cpu.fault + Fault.vector_plus_1], eax
    ; Was it the instruction under test, or what belongs to its experiment? Then only this phase is over.
    cmp dword ptr [results + Results.state], KernelState.RUNNING
    jne .fatal
    mov eax, dword ptr [ebx + Cpu.fault + Fault.eip]
    cmp eax, work_begin
    jb .fatal
    cmp eax, work_end
    jae .fatal
    lock inc dword ptr [phase_faults]
    test ebp, ebp
    jz phase_aborted
    imul esp, ebp, STACK_SIZE
    add esp, stacks + STACK_SIZE
    jmp crew_faulted
.fatal:
    mov dword ptr [ebx + Cpu.state], CpuState.FAULTED
    lock inc dword ptr [results + Results.faults]
    ; only the BSP talks; the others' faults it finds in its waits
    test ebp, ebp
    jnz final_park

; Prints every CPU's fault and ends the run. Does not return.
report_faults:
    mov esp, stacks + STACK_SIZE
    ; if it was drawing that failed, it is not tried again
    cmp byte ptr [screen_busy], 0
    je .drawn
    mov dword ptr [results + Results.screen], Screen.NONE
    mov byte ptr [screen_live], 0
.drawn:
    xor ebp, ebp
    mov ebx, results + Results.cpu
.cpu:
    cmp dword ptr [ebx + Cpu.fault + Fault.vector_plus_1], 0
    je .next
    lea esi, [ebx + Cpu.fault]
    push NO_PHASE
    call record_fault
    push dword ptr [ebx + Cpu.fault + Fault.eip]
    mov eax, dword ptr [ebx + Cpu.fault + Fault.vector_plus_1]
    dec eax
    push eax
    push ebp
    mov esi, sentence_fault
    call put_sentence
    add esp, 12
.next:
    add ebx, Cpu.SIZE
    inc ebp
    cmp ebp, CPU_TABLE
    jb .cpu
    mov eax, KernelState.FAULTED
    jmp finish

; Prints one exception. in: ESI the Fault, EBP the CPU; on the stack: the phase it ended, or NO_PHASE (taken off)
; clobbers: EAX, ECX, EDX
record_fault:
    push dword ptr [esp + 4]
    push dword ptr [esi + Fault.cr2]
    push dword ptr [esi + Fault.eflags]
    push dword ptr [esi + Fault.eip]
    push dword ptr [esi + Fault.error]
    mov eax, dword ptr [esi + Fault.vector_plus_1]
    dec eax
    push eax
    push ebp
    push format_fault
    call record
    add esp, 32
    ret 4
